// Finds accesses of two threads that nothing orders, and reads of what nobody wrote.
//
// Accesses are ordered within a thread, by barriers of a block, by __syncwarp, and from block to block by a fence before an
// atomic operation that one of the other block follows: so the last block of a grid may go on with what all have left.
#pragma once

#include "threads.h"

namespace emulator {

// Who touched a byte of an array.
struct Byte {
  std::uint32_t launch = 0;      // of these accesses
  Moment write, read;            // the last ones
  bool is_atomic = false;        // the write
  bool several_readers = false;  // in the block and epoch of the read
  bool is_written = false;       // in any launch, or by the host
};

// Notes an access. Returns whether all is well; if not, that has been reported.
bool touch(Byte&, Access, const Thread&, const char* array, std::size_t place);

// What fences put in order, an atomic operation on a word tells to the next one.
void exchange_knowledge(const void* word, const Thread&);
void forget_fences();  // those of a launch that has ended

}  // namespace emulator
