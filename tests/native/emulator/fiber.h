// A flow of control with a stack of its own, for x86-64. Kernels' threads are fibers of one thread of the host, so that the
// scheduler alone decides who goes on, and a seed repeats a run.
#pragma once

#include <cstddef>

namespace emulator {

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;

  bool on_stack(const void* address) const;
};

void start(Fiber&, void (*entry)());  // entry ends with suspend_forever
void resume(Fiber&);                  // comes back when the fiber suspends itself
void suspend(Fiber&);
[[noreturn]] void suspend_forever(Fiber&);
void give_stack_back(Fiber&);

}  // namespace emulator
