// How the CPU backend spreads a table over threads, and reads it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../backends.h"
#include "versions.h"

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

// Asks for the lines of scores that come next, as processors do not fetch ahead from one page into another by themselves. Where
// these lie behind the table, nothing happens.
inline void fetch_ahead(const float* scores, int count) {
  constexpr int line = 64 / sizeof(float);
  for (int i = 0; i < count; i += line) __builtin_prefetch(scores + i);
}

// Calls body(tile, first slot) for all tiles of [begin, end); the last one is filled up with unseen scores.
template <int kTile, class Body>
void for_each_tile(const float* scores, std::int64_t begin, std::int64_t end, const Body& body) {
  for (; begin + kTile <= end; begin += kTile) {
    fetch_ahead(scores + begin + kTile, kTile);
    body(scores + begin, begin);
  }
  if (begin == end) return;
  float last[kTile];
  std::fill(std::copy(scores + begin, scores + end, last), last + kTile, float_of(kUnseenBits));
  body(last, begin);
}

}  // namespace infobatch::cpu
