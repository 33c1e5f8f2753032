// The exact sum of float32 scores as integers, and the mean threshold from it.
//
// A finite float32 is +-m * 2^(shift - 149) with m < 2^24 and shift in [0, 253], so every score is a multiple of 2^-149 and
// the sum of up to 2^40 of them is below 2^(24 + 253 + 40) = 2^317 of these units. The sum is kept in ten limbs:
//     sum = 2^-149 * (limb[0] + limb[1] * 2^32 + ... + limb[9] * 2^288)
// Limbs are signed 64-bit and need not be below 2^32: any split of the same integer is valid, so parts that were summed by
// tiles, threads or ranks are added limb by limb in any order, and the total stands for the same integer. A backend splits each
// partial sum into a low part in [0, 2^32) and a high part of magnitude <= 2^31, so 2^31 parts cannot overflow a limb.
#pragma once

#include "float_order.h"

namespace infobatch {

inline constexpr int kLimbs = 10;
inline constexpr int kSumWords = kLimbs + 1;  // the limbs, then the number of seen scores
inline constexpr std::uint64_t kMaxSamples = 1ull << 40;

// Where the mantissa of a finite float stands, in units of 2^-149.
IB_HD std::uint32_t mantissa_shift(std::uint32_t exponent) { return exponent > 0 ? exponent - 1 : 0; }

IB_HD std::int32_t signed_mantissa(std::uint32_t bits) {
  const std::uint32_t mantissa = (bits & 0x7FFFFFu) | (exponent_of(bits) > 0 ? 0x800000u : 0u);
  const std::int32_t negative = -static_cast<std::int32_t>(bits >> 31);
  return (static_cast<std::int32_t>(mantissa) ^ negative) - negative;
}

// Moves what is above 32 bits to the next limb. A part of up to 2^31 tiles ends with this, so that 2^31 parts can be added.
IB_HD void carry_limbs(std::int64_t* limbs) {
  for (int i = 0; i + 1 < kLimbs; ++i) {
    limbs[i + 1] += limbs[i] >> 32;
    limbs[i] &= 0xFFFFFFFFll;
  }
}

// Ten 32-bit digits of |sum| and its sign.
struct WideInteger {
  std::uint32_t digit[kLimbs];
  bool negative;
};

IB_HD WideInteger normalise(const std::int64_t* limbs) {
  WideInteger wide{};
  std::int64_t carry = 0;
  for (int i = 0; i < kLimbs; ++i) {
    const std::int64_t word = limbs[i] + carry;
    wide.digit[i] = static_cast<std::uint32_t>(word);
    carry = word >> 32;
  }
  wide.negative = carry < 0;
  if (wide.negative) {  // two's complement -> magnitude
    std::uint64_t plus = 1;
    for (int i = 0; i < kLimbs; ++i) {
      plus += static_cast<std::uint32_t>(~wide.digit[i]);
      wide.digit[i] = static_cast<std::uint32_t>(plus);
      plus >>= 32;
    }
  }
  return wide;
}

// Sign of |threshold| * count - |sum|, exactly. count < 2^40.
IB_HD int compare_magnitude(std::uint32_t threshold_bits, std::uint64_t count, const WideInteger& sum) {
  const std::uint32_t exponent = exponent_of(threshold_bits), shift = mantissa_shift(exponent);
  const std::uint64_t mantissa = (threshold_bits & 0x7FFFFFu) | (exponent > 0 ? 0x800000u : 0u);
  const std::uint64_t product = mantissa * count;  // < 2^64
  const std::uint32_t offset = shift & 31;
  const std::uint64_t low = (product & 0xFFFFFFFFull) << offset, high = (product >> 32) << offset;
  const std::uint64_t middle = (low >> 32) + (high & 0xFFFFFFFFull);
  const std::uint64_t part[3] = {low & 0xFFFFFFFFull, middle & 0xFFFFFFFFull, (high >> 32) + (middle >> 32)};
  const int first = static_cast<int>(shift >> 5);
  for (int i = kLimbs - 1; i >= 0; --i) {
    const std::uint64_t digit = i >= first && i < first + 3 ? part[i - first] : 0;
    if (digit != sum.digit[i]) return digit > sum.digit[i] ? 1 : -1;
  }
  return 0;
}

// The mean threshold is the smallest float32 t with t * seen >= sum. For every float32 score, score < t <=> score < the
// real-valued mean, so rounding decides nothing. It is searched among ordered keys; a mean lies between the lowest and the
// highest finite float.
IB_HD constexpr std::uint32_t lowest_mean_key() { return 0x00800000u; }
IB_HD constexpr std::uint32_t highest_mean_key() { return 0xFF7FFFFFu; }

// Whether the float32 of this key is at least the mean.
IB_HD bool reaches_mean(std::uint32_t key, std::uint64_t seen, const WideInteger& sum) {
  const std::uint32_t bits = bits_of_key(key);
  const bool negative = (bits >> 31) != 0, zero = (bits << 1) == 0;
  if (zero) return sum.negative || compare_magnitude(0, seen, sum) == 0;
  if (negative != sum.negative) return !negative;
  const int sign = compare_magnitude(bits, seen, sum);
  return negative ? sign <= 0 : sign >= 0;
}

// The threshold of the smallest key that reaches the mean. There is one zero only.
IB_HD float threshold_of_key(std::uint32_t key) {
  const std::uint32_t bits = bits_of_key(key);
  return float_of((bits << 1) == 0 ? 0u : bits);
}

// -infinity (nothing is below it) where nothing was seen.
IB_HD float mean_threshold(const std::int64_t* sum_words) {
  const std::uint64_t seen = static_cast<std::uint64_t>(sum_words[kLimbs]);
  if (seen == 0) return float_of(kMinusInfinityBits);
  const WideInteger sum = normalise(sum_words);
  std::uint32_t low = lowest_mean_key(), high = highest_mean_key();
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (reaches_mean(middle, seen, sum)) high = middle;
    else low = middle + 1;
  }
  return threshold_of_key(low);
}

}  // namespace infobatch
