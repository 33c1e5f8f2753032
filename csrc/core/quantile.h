// Exact order statistics by radix selection: three histograms of 11, 11 and 10 bits of the ordered key narrow each wanted
// rank to one float32. Histograms are sums of counts, so those of ranks and threads are added in any order.
#pragma once

#include "float_order.h"
#include "tiers.h"

namespace infobatch {

inline constexpr int kDigitPasses = 3;
inline constexpr int kDigitBins = 2048;

IB_HD int digit_shift(int pass) { return pass == 0 ? 21 : pass == 1 ? 10 : 0; }

IB_HD std::uint32_t digit_of(std::uint32_t key, int pass) { return (key >> digit_shift(pass)) & (pass == 2 ? 0x3FFu : 0x7FFu); }

// Bits of the key that earlier passes have fixed.
IB_HD std::uint32_t prefix_mask(int pass) { return pass == 0 ? 0u : pass == 1 ? 0xFFE00000u : 0xFFFFFC00u; }

// Digits of finite scores in pass 0: NaN and the infinities have bins of their own, at both ends. In later passes they share no
// prefix with a finite score, as all bits of the exponent are in it.
inline constexpr int kFirstFinite = 4, kEndOfFinite = 0x7FC;
inline constexpr int kProtectedDigit = kEndOfFinite;  // where protected samples are counted apart, in the bin of infinity
inline constexpr int kEndOfSeen = kProtectedDigit + 1;

// What is known of each wanted order statistic after some passes: its leading key bits, and its rank among the seen scores
// that share them.
struct QuantileState {
  std::int64_t prefix[kMaxThresholds];
  std::int64_t rank[kMaxThresholds];
  std::int64_t seen;
};

// Rank (from 0) of the quantile among `seen` scores: floor(seen * fraction / 2^32), fraction = ceil(q * 2^32) <= 2^32. For
// other uses `seen` may be any number up to 2^57.
IB_HD std::int64_t quantile_rank(std::uint64_t seen, std::uint64_t fraction) {
  return static_cast<std::int64_t>((seen >> 32) * fraction + (((seen & 0xFFFFFFFFull) * fraction) >> 32));
}

// Before the first pass is applied: the ranks that are wanted, from the histogram of all seen scores.
IB_HD void start_quantiles(QuantileState& state, const std::int64_t* counts, const std::uint64_t* fractions, int num_targets) {
  state = QuantileState{};
  for (int digit = 0; digit < kDigitBins; ++digit) state.seen += counts[digit];
  for (int t = 0; t < num_targets; ++t) {
    state.rank[t] = quantile_rank(static_cast<std::uint64_t>(state.seen), fractions[t]);
  }
}

// Narrow target t by the histogram of its candidates' digits in this pass: the bin that holds the rank is the next digit.
IB_HD void narrow_one(QuantileState& state, int t, const std::int64_t* counts, int pass) {
  std::int64_t rank = state.rank[t];
  std::uint32_t digit = 0;
  while (digit + 1 < kDigitBins && rank >= counts[digit]) rank -= counts[digit++];
  state.rank[t] = rank;
  state.prefix[t] |= static_cast<std::int64_t>(digit) << digit_shift(pass);
}

// After the last pass the prefixes are whole keys. Where nothing was seen, nothing is below a threshold.
IB_HD void write_thresholds(const QuantileState& state, int num_targets, float* thresholds) {
  for (int t = 0; t < kMaxThresholds; ++t) {
    const bool known = t < num_targets && state.seen > 0;
    thresholds[t] = float_of(known ? bits_of_key(static_cast<std::uint32_t>(state.prefix[t])) : kMinusInfinityBits);
  }
}

}  // namespace infobatch
