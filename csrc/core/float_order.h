// float32 seen as integers: bits, the order-preserving key, and what counts as unseen.
#pragma once

#include <cstring>

#include "portable.h"

namespace infobatch {

// The table holds this NaN for a sample that has no score. Finite scores alone enter it, so NaN is free to mean this. It is
// below no threshold, as a float or by its key, as its sign is clear.
inline constexpr std::uint32_t kUnseenBits = 0x7FC00000u;

// A threshold that nothing is below.
inline constexpr std::uint32_t kMinusInfinityBits = 0xFF800000u;

inline constexpr std::uint32_t kMinusZeroBits = 0x80000000u;

IB_HD std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

IB_HD float float_of(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

IB_HD std::uint32_t exponent_of(std::uint32_t bits) { return (bits >> 23) & 0xFFu; }

IB_HD bool is_finite_bits(std::uint32_t bits) { return exponent_of(bits) != 0xFFu; }

// a < b as floats <=> key(a) < key(b) as integers (but key(-0) < key(+0)).
IB_HD std::uint32_t ordered_key(std::uint32_t bits) { return bits ^ ((bits >> 31) ? 0xFFFFFFFFu : 0x80000000u); }

// The same order in signed numbers.
IB_HD std::int32_t signed_key(std::uint32_t bits) { return static_cast<std::int32_t>(ordered_key(bits) ^ 0x80000000u); }

IB_HD std::uint32_t bits_of_key(std::uint32_t key) { return key ^ ((key >> 31) ? 0x80000000u : 0xFFFFFFFFu); }

}  // namespace infobatch
