// What may differ between runs on real GPUs.
#pragma once

#include <cstdint>

namespace emulator {

struct Settings {
  std::uint64_t seed = 1;
  int device = 0;  // 1 has no clusters, 2 no room for one
  int multiprocessors = 2;
  unsigned resident_blocks = 3;  // that take turns
  unsigned switch_every = 8;     // one in so many accesses to memory gives the turn away; 0: threads run until they wait
  unsigned most_blocks = 0;      // of a kernel that would stride by a grid too large to be emulated; 0: any number
};
extern Settings settings;

// Something that no kernel may do. Counted, and printed with the kernel and thread that did it.
void error(const char* format, ...) __attribute__((format(printf, 1, 2)));
long num_errors();

}  // namespace emulator
