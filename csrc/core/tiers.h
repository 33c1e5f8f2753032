// Tiers: which keep probability a score falls under, the integer comparison that decides, and the weight that undoes it.
//
// Up to three thresholds, in descending order and padded with -infinity, make up to four tiers. A sample's tier is the number
// of thresholds that its score is below: 0 is the top tier, which holds the unseen samples too (NaN is below nothing).
#pragma once

#include "float_order.h"
#include "philox.h"

namespace infobatch {

inline constexpr int kMaxThresholds = 3;
inline constexpr int kMaxTiers = kMaxThresholds + 1;
inline constexpr std::uint32_t kLaneRange = 1u << 16;  // a draw is 16 bits wide
inline constexpr int kRowSlots = 8;                    // draws in a Philox block: one block decides a row of 8 slots

// keep <=> lane < cutoff. cutoff = round half up of p * 2^16, at least 1; 2^16 keeps every sample.
struct Cutoffs {
  std::uint32_t of_tier[kMaxTiers];
};

IB_HD std::uint32_t cutoff_of(double keep_probability) {
  const double scaled = keep_probability * kLaneRange + 0.5;
  const std::uint32_t cutoff = static_cast<std::uint32_t>(scaled);
  return cutoff < 1 ? 1 : cutoff > kLaneRange ? kLaneRange : cutoff;
}

// The weight is the reciprocal of the quantised probability, so that sum(weight) is unbiased by construction. `scale` is what
// all weights of a plan are multiplied by.
IB_HD float weight_of(std::uint32_t cutoff, double scale) {
  return static_cast<float>(static_cast<double>(kLaneRange) / cutoff * scale);
}

// What a plan does to each tier: the cutoffs, and the weights that undo them.
struct Tiers {
  Cutoffs cutoffs;
  float weights[kMaxTiers];
};

IB_HD Tiers tiers_of(const Cutoffs& cutoffs, double scale) {
  Tiers tiers{cutoffs, {}};
  for (int tier = 0; tier < kMaxTiers; ++tier) tiers.weights[tier] = weight_of(cutoffs.of_tier[tier], scale);
  return tiers;
}

// Whether there is one threshold, as with the mean, or none: nothing is below what pads.
IB_HD bool one_threshold(const float* thresholds) { return bits_of(thresholds[1]) == kMinusInfinityBits; }

// Draw of slot: lane slot % 8 of the Philox block of row slot / 8; lane 2i is the low half of word i, lane 2i + 1 the high.
IB_HD std::uint32_t lane_of(const PhiloxBlock& block, int lane) {
  return (lane & 1) ? block.w[lane >> 1] >> 16 : block.w[lane >> 1] & 0xFFFFu;
}

}  // namespace infobatch
