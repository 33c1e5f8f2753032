// torch.set_flush_denormal makes the processor take subnormal numbers for zeros, on the thread that calls it alone.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace infobatch::cpu {

// Makes this thread compute with subnormal numbers as they are, and undoes that at the end of its scope. What is to be computed
// so stands in a function of its own that is not inlined, as compilers move arithmetic past a change of the mode.
class WithSubnormals {
 public:
  WithSubnormals() : mode_(read()) { write(mode_ & ~kFlushes); }
  ~WithSubnormals() { write(mode_); }
  WithSubnormals(const WithSubnormals&) = delete;
  WithSubnormals& operator=(const WithSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr std::uint64_t kFlushes = 0x8040;  // of results (FTZ) and of operands (DAZ)
  static std::uint64_t read() { return _mm_getcsr(); }
  static void write(std::uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
  static constexpr std::uint64_t kFlushes = 1u << 24 | 1u;  // FZ, and FIZ where there is one
  static std::uint64_t read() {
    std::uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void write(std::uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#else  // other processors are not told to flush by torch
  static constexpr std::uint64_t kFlushes = 0;
  static std::uint64_t read() { return 0; }
  static void write(std::uint64_t) {}
#endif

  const std::uint64_t mode_;
};

}  // namespace infobatch::cpu
