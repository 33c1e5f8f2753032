// What `g++ -fsanitize=thread` calls at each load and store of the kernels, in place of ThreadSanitizer itself.
#include "memory.h"
#include "settings.h"
#include "threads.h"

namespace emulator {
namespace {

[[maybe_unused]] const bool is_set = sees_all_accesses = true;

void hooked(const void* address, std::size_t bytes, Access kind) {
  const Thread* self = current_thread();
  if (!self || self->fiber.on_stack(address)) return;
  maybe_switch();
  access(address, bytes, kind);
}

}  // namespace
}  // namespace emulator

#define HOOK(name, bytes)                                                                                         \
  extern "C" void __tsan_read##name(void* at) { emulator::hooked(at, bytes, emulator::Access::kRead); }           \
  extern "C" void __tsan_write##name(void* at) { emulator::hooked(at, bytes, emulator::Access::kWrite); }         \
  extern "C" void __tsan_unaligned_read##name(void* at) { emulator::hooked(at, bytes, emulator::Access::kRead); } \
  extern "C" void __tsan_unaligned_write##name(void* at) { emulator::hooked(at, bytes, emulator::Access::kWrite); }
HOOK(1, 1)
HOOK(2, 2)
HOOK(4, 4)
HOOK(8, 8)
HOOK(16, 16)
extern "C" void __tsan_read_range(void* at, std::size_t bytes) { emulator::hooked(at, bytes, emulator::Access::kRead); }
extern "C" void __tsan_write_range(void* at, std::size_t bytes) { emulator::hooked(at, bytes, emulator::Access::kWrite); }
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_init() {}

// std::atomic in functions of the host.
extern "C" int __tsan_atomic32_load(const volatile int* at, int) { return *at; }
extern "C" void __tsan_atomic32_store(volatile int* at, int value, int) { *at = value; }
