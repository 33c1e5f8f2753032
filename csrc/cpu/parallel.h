// How the CPU backend spreads a table over threads and instruction sets.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../backends.h"

// One binary for every x86-64: the compiler makes the marked functions three times (baseline, AVX2, AVX-512) and the loader
// picks. Other machines and compilers use the one build that they have. Off under sanitizers, which cannot run resolvers.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(INFOBATCH_SANITIZE)
#define IB_MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define IB_MULTIVERSION
#endif

namespace infobatch::cpu {

// Calls body(begin, end) for up to `threads` contiguous parts of [0, total), cut at multiples of `grain`. One part runs on the
// calling thread: a team costs microseconds, and a forked worker must never start one.
template <class Body>
void parallel_parts(std::int64_t total, std::int64_t grain, int threads, const Body& body) {
  const std::int64_t grains = (total + grain - 1) / grain;
  const int parts = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, grains)));
  const auto run = [&](int part) {
    const std::int64_t begin = grains * part / parts * grain, end = std::min(grains * (part + 1) / parts * grain, total);
    if (begin < end) body(begin, end);
  };
  if (parts == 1) return run(0);
#pragma omp parallel for num_threads(parts) schedule(static, 1)
  for (int part = 0; part < parts; ++part) run(part);
}

}  // namespace infobatch::cpu
