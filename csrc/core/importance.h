// Importance sampling: cutoffs that follow the norm of a sample's gradient, rounded to tiers, for a given number of kept
// samples. From the histogram of the scores' first digits, whose bins are a quarter of an octave wide.
#pragma once

#include <cmath>

#include "quantile.h"

namespace infobatch {

// Digits below hold what is below 2^-126: zeros of both signs, subnormal and negative scores. They are one bin.
inline constexpr int kFirstPositive = 0x404;
inline constexpr double kZeroNorm = 0x1p-150;  // so that all other scores are kept always before these are kept more than least
inline constexpr int kNorms = kEndOfFinite - kFirstPositive;
inline constexpr int kMaxGroups = kNorms + 1;

// Samples that are kept alike: those of a bin, or of a tier.
struct Group {
  std::int64_t size;
  double norm;
  int end;  // the first digit above them
};

IB_HD bool is_negative_digit(int digit) { return digit < 0x3FF; }  // without the bin of -0

IB_HD float edge_of_digit(int digit) { return float_of(bits_of_key(static_cast<std::uint32_t>(digit) << 21)); }

// Factors are numbered in their order: the upper half of a double's bits.
inline constexpr std::uint32_t kHighestFactor = 0x7FEFFFFFu;

IB_HD double factor_of(std::uint32_t number) {
  const std::uint64_t bits = static_cast<std::uint64_t>(number) << 32;
  double factor;
  memcpy(&factor, &bits, sizeof factor);
  return factor;
}

IB_HD std::uint32_t importance_cutoff(double factor, double norm, std::uint32_t least) {
  const double wanted = factor * norm;
  if (wanted >= kLaneRange) return kLaneRange;
  const std::uint32_t cutoff = static_cast<std::uint32_t>(wanted);
  return cutoff > least ? cutoff : least;
}

// How many samples are kept in expectation, in units of 2^-16. It grows with the factor.
IB_HD std::int64_t expected_kept(const Group* groups, int num_groups, double factor, std::uint32_t least) {
  std::int64_t kept = 0;
  for (int i = 0; i < num_groups; ++i) kept += groups[i].size * importance_cutoff(factor, groups[i].norm, least);
  return kept;
}

// Tiers end at equal ratios of the probability between the lowest one and 1.
IB_HD int importance_tier(std::uint64_t cutoff, std::uint64_t lowest) {
  if (cutoff == kLaneRange) return 0;
  const std::uint64_t cube = cutoff * cutoff * cutoff;
  return cube >= lowest << 32 ? 1 : cube >= (lowest * lowest) << 16 ? 2 : 3;
}

// How many of `total` samples are to be kept, in units of 2^-16; fraction = ceil(part * 2^32).
IB_HD std::int64_t kept_budget(std::int64_t total, std::uint64_t fraction) {
  return quantile_rank(static_cast<std::uint64_t>(total) << 16, fraction);
}

struct ImportanceCuts {
  float thresholds[kMaxThresholds];  // descending, padded with -infinity
  Cutoffs cutoffs;
};

// Cuts ascending bins into tiers. find(groups, num_groups, budget) returns the smallest factor that keeps so many.
template <class Find>
IB_HD ImportanceCuts cut_by_importance(const Group* bins, int num_bins, std::int64_t budget, std::uint32_t least,
                                       const Find& find) {
  const float never = float_of(kMinusInfinityBits);
  ImportanceCuts cuts{{never, never, never}, {{kLaneRange, kLaneRange, kLaneRange, kLaneRange}}};
  if (num_bins == 0) return cuts;

  const double of_bins = find(bins, num_bins, budget);
  const std::uint32_t lowest = importance_cutoff(of_bins, bins[0].norm, least);
  Group tiers[kMaxThresholds];  // ascending, without the one that is always kept
  int num_tiers = 0, last = 0;
  for (int i = 0; i < num_bins; ++i) {
    const Group bin = bins[i];
    const int step = importance_tier(importance_cutoff(of_bins, bin.norm, least), lowest);
    if (step == 0) {
      budget -= bin.size * kLaneRange;
      continue;
    }
    if (step != last) tiers[num_tiers++] = Group{0, 0.0, 0};
    last = step;
    Group& tier = tiers[num_tiers - 1];
    tier.size += bin.size;
    tier.norm += static_cast<double>(bin.size) * (bin.norm * bin.norm);
    tier.end = bin.end;
  }
  for (int i = 0; i < num_tiers; ++i) tiers[i].norm = std::sqrt(tiers[i].norm / static_cast<double>(tiers[i].size));

  const double of_tiers = find(tiers, num_tiers, budget);
  for (int i = 0; i < num_tiers; ++i) {
    const int tier = num_tiers - i;
    cuts.thresholds[tier - 1] = edge_of_digit(tiers[i].end);
    cuts.cutoffs.of_tier[tier] = importance_cutoff(of_tiers, tiers[i].norm, least);
  }
  return cuts;
}

}  // namespace infobatch
