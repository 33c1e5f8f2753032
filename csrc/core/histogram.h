// In which bin a score is. Scores and edges are compared as integers, where both zeros are one number and nothing is flushed.
#pragma once

#include <cmath>

#include "float_order.h"

namespace infobatch {

inline constexpr int kMaxBins = 4096;
inline constexpr std::int32_t kInfinityKey = 0x7F800000;
inline constexpr std::int32_t kNoKey = 0x7FFFFFFF;  // above the key of every number

// a < b as floats <=> key(a) < key(b); key(-a) = -key(a); key(-0) = key(0) = 0. Beyond the infinities there are the NaNs.
IB_HD std::int32_t number_key(std::uint32_t bits) {
  const std::int32_t size = static_cast<std::int32_t>(bits & 0x7FFFFFFFu);
  return bits >> 31 ? -size : size;
}

IB_HD bool is_number_key(std::int32_t key) { return key >= -kInfinityKey && key <= kInfinityKey; }

// The three keys of which ScoreRange wants the smallest: of a score, of its negative and of its size.
IB_HD std::int32_t range_key(std::int32_t key, int which) {
  const std::int32_t size = key < 0 ? -key : key, wanted = which == 0 ? key : which == 1 ? -key : size;
  const std::int32_t left_out = size > kInfinityKey || (which == 2 && size == 0) ? -1 : 0;
  return (wanted & ~left_out) | (kNoKey & left_out);  // in bits, which compilers vectorise where a minimum is taken of them
}

// The number with this key, by the host. A conversion from float would depend on torch.set_flush_denormal.
inline double number_of_key(std::int32_t key) {
  const std::int32_t size = key < 0 ? -key : key, exponent = size >> 23;
  const std::int32_t mantissa = (size & 0x7FFFFF) | (exponent > 0 ? 0x800000 : 0);
  return std::ldexp(key < 0 ? -mantissa : mantissa, (exponent > 0 ? exponent : 1) - 150);
}

// The smallest key whose number is not below this one, by the host.
inline std::int32_t first_key_from(double number) {
  if (number == 0) return 0;
  int exponent;
  std::frexp(number, &exponent);
  if (exponent > 128) return number < 0 ? 1 - kInfinityKey : kInfinityKey;
  if (exponent < -125) exponent = -125;  // subnormal ones share their unit
  const std::int32_t units = static_cast<std::int32_t>(std::ceil(std::ldexp(number, 24 - exponent)));
  const std::int32_t binades = (exponent + 125) * 0x800000;
  return number < 0 ? units - binades : units + binades;
}

// How many edges are <= key is found in steps of a power of two and its halves, each without a branch: `before` of them are.
// The edges are followed by so many kNoKey that all this may be read.
IB_HD int count_edges_once(const std::int32_t* edges, std::int32_t key, int before, int step) {
  return before + (edges[before + step - 1] <= key ? step : 0);
}

// The first step for so many edges: the highest power of two that is not above them, or 0.
IB_HD int first_step(int num_edges) {
  int step = num_edges > 0 ? 1 : 0;
  while (2 * step <= num_edges && step > 0) step *= 2;
  return step;
}

}  // namespace infobatch
