#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#if !defined(__x86_64__)
#error "The emulator switches stacks by instructions of x86-64."
#endif

// AddressSanitizer has to know which stack is in use.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define START_SWITCH(...) __sanitizer_start_switch_fiber(__VA_ARGS__)
#define FINISH_SWITCH(...) __sanitizer_finish_switch_fiber(__VA_ARGS__)
#define ALLOW_STACK(fiber) __asan_unpoison_memory_region((fiber).stack, kStackBytes)
#else
#define START_SWITCH(...) static_cast<void>(0)
#define FINISH_SWITCH(...) static_cast<void>(0)
#define ALLOW_STACK(fiber) static_cast<void>(0)
#endif

// Saves the registers that a call leaves alone, and takes up those that another flow has saved.
extern "C" void emulator_switch(void** save_stack_pointer, void* stack_pointer);
extern "C" void emulator_first_switch();
asm(R"(
.text
.globl emulator_switch
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.globl emulator_first_switch
emulator_first_switch:
  xorl %ebp, %ebp
  call emulator_enter
  hlt
)");

namespace emulator {
namespace {

constexpr std::size_t kStackBytes = 64 << 10;
constexpr int kSavedRegisters = 6;

std::vector<char*> free_stacks;
void* scheduler = nullptr;  // its stack pointer
void (*entry_of_fibers)() = nullptr;

[[maybe_unused]] const void* scheduler_stack = nullptr;
[[maybe_unused]] std::size_t scheduler_stack_bytes = 0;
[[maybe_unused]] void* scheduler_shadow = nullptr;

char* take_stack() {
  if (free_stacks.empty()) {
    void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      std::perror("no stack for a thread of a kernel");
      std::exit(4);
    }
    free_stacks.push_back(static_cast<char*>(memory));
  }
  char* stack = free_stacks.back();
  free_stacks.pop_back();
  return stack;
}

}  // namespace

extern "C" __attribute__((no_sanitize("address"))) void emulator_enter() {
  FINISH_SWITCH(nullptr, &scheduler_stack, &scheduler_stack_bytes);
  entry_of_fibers();
}

bool Fiber::on_stack(const void* address) const {
  const char* at = static_cast<const char*>(address);
  return at >= stack && at < stack + kStackBytes;
}

void start(Fiber& fiber, void (*entry)()) {
  entry_of_fibers = entry;
  fiber.stack = take_stack();
  ALLOW_STACK(fiber);
  // As if it had called emulator_switch: the return address, below it the saved registers. At the entry of a function the stack
  // is 8 bytes off a multiple of 16.
  std::uint64_t* top = reinterpret_cast<std::uint64_t*>(fiber.stack + kStackBytes) - 2;
  *--top = reinterpret_cast<std::uint64_t>(&emulator_first_switch);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = 0;
  fiber.stack_pointer = top;
}

__attribute__((no_sanitize("address"))) void resume(Fiber& fiber) {
  START_SWITCH(&scheduler_shadow, fiber.stack, kStackBytes);
  emulator_switch(&scheduler, fiber.stack_pointer);
  FINISH_SWITCH(scheduler_shadow, nullptr, nullptr);
}

__attribute__((no_sanitize("address"))) void suspend(Fiber& fiber) {
  [[maybe_unused]] void* shadow = nullptr;
  START_SWITCH(&shadow, scheduler_stack, scheduler_stack_bytes);
  emulator_switch(&fiber.stack_pointer, scheduler);
  FINISH_SWITCH(shadow, nullptr, nullptr);
}

__attribute__((no_sanitize("address"))) void suspend_forever(Fiber& fiber) {
  START_SWITCH(nullptr, scheduler_stack, scheduler_stack_bytes);
  emulator_switch(&fiber.stack_pointer, scheduler);
  std::abort();
}

void give_stack_back(Fiber& fiber) { free_stacks.push_back(fiber.stack); }

}  // namespace emulator
