// Statistics of the scores: the exact sum behind the mean threshold, and radix selection behind the quantile tiers.
#include "parallel.h"

namespace infobatch::cpu {
namespace {

constexpr std::int64_t kGrain = 1 << 16;

// A window is 32 neighbouring exponents: their mantissas, shifted to a common unit, are below 2^55, and 256 of them below
// 2^63. Most scores of a data set fall in one or two windows, so a tile costs one vectorised pass for each window it meets.
constexpr int kSumTile = 256;
constexpr std::uint32_t kWindowBits = 32;

struct TileSummary {
  std::uint32_t windows;  // bit w: some score of the tile lies in window w
  std::uint32_t seen;
};

IB_MULTIVERSION TileSummary summarise(const float* scores) {
  std::uint32_t windows = 0, seen = 0;
  for (int i = 0; i < kSumTile; ++i) {
    const std::uint32_t exponent = exponent_of(bits_of(scores[i]));
    const std::uint32_t finite = 1u - ((exponent + 1u) >> 8);  // a number and not a condition, or the loop stays scalar
    windows |= finite << (mantissa_shift(exponent) / kWindowBits);
    seen += finite;
  }
  return {windows, seen};
}

IB_MULTIVERSION std::int64_t sum_window(const float* scores, std::uint32_t window) {
  std::int64_t sum = 0;
  for (int i = 0; i < kSumTile; ++i) {
    const std::uint32_t bits = bits_of(scores[i]), shift = mantissa_shift(exponent_of(bits));
    const bool inside = shift / kWindowBits == window && is_finite_bits(bits);
    const std::int64_t mantissa = inside ? signed_mantissa(bits) : 0;
    sum += static_cast<std::int64_t>(static_cast<std::uint64_t>(mantissa) << (shift % kWindowBits));
  }
  return sum;
}

void add_tile(const float* scores, std::int64_t* words) {
  const TileSummary summary = summarise(scores);
  words[kLimbs] += summary.seen;
  for (std::uint32_t window = 0; summary.windows >> window; ++window) {
    if (!((summary.windows >> window) & 1u)) continue;
    const std::int64_t sum = sum_window(scores, window);
    words[window] += sum & 0xFFFFFFFFll;
    words[window + 1] += sum >> 32;
  }
}

// counts[t] of the digits of those scores that share the leading bits of target t.
void count_digits_in(const CountDigits& args, int targets, std::int64_t begin, std::int64_t end,
                     std::int64_t (*counts)[kDigitBins]) {
  const std::uint32_t mask = prefix_mask(args.pass);
  for (int t = 0; t < targets; ++t) {
    const std::uint32_t prefix = args.pass == 0 ? 0u : static_cast<std::uint32_t>(args.state->prefix[t]);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t bits = bits_of(args.scores[i]), key = ordered_key(bits);
      if (is_finite_bits(bits) && (key & mask) == prefix) counts[t][digit_of(key, args.pass)] += 1;
    }
  }
}

}  // namespace

Status sum_scores(const SumScores& args, int threads) {
  std::fill(args.sum, args.sum + kSumWords, 0);
  parallel_parts(args.num_slots, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t words[kSumWords] = {};
    std::int64_t tile = begin;
    for (; tile + kSumTile <= end; tile += kSumTile) add_tile(args.scores + tile, words);
    if (tile < end) {
      float last[kSumTile];
      std::fill(std::copy(args.scores + tile, args.scores + end, last), last + kSumTile, float_of(kUnseenBits));
      add_tile(last, words);
    }
    for (int i = 0; i < kSumWords; ++i) {
#pragma omp atomic
      args.sum[i] += words[i];
    }
  });
  return Status::kOk;
}

Status mean_threshold(const MeanThreshold& args, int) {
  args.thresholds[0] = infobatch::mean_threshold(args.sum);
  args.thresholds[1] = args.thresholds[2] = float_of(kMinusInfinityBits);
  return Status::kOk;
}

Status count_digits(const CountDigits& args, int threads) {
  std::fill(args.counts, args.counts + kMaxThresholds * kDigitBins, 0);
  const int targets = args.pass == 0 ? 1 : args.num_targets;
  parallel_parts(args.num_slots, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t counts[kMaxThresholds][kDigitBins] = {};
    constexpr std::int64_t kCached = 4096;  // scores that stay in the first-level cache for all targets
    for (std::int64_t i = begin; i < end; i += kCached) count_digits_in(args, targets, i, std::min(i + kCached, end), counts);
    for (int t = 0; t < targets; ++t) {
      for (int digit = 0; digit < kDigitBins; ++digit) {
#pragma omp atomic
        args.counts[t * kDigitBins + digit] += counts[t][digit];
      }
    }
  });
  return Status::kOk;
}

Status narrow_quantiles(const NarrowQuantiles& args, int) {
  QuantileState& state = *args.state;
  if (args.pass == 0) start_quantiles(state, args.counts, args.fractions, args.num_targets);
  for (int t = 0; t < args.num_targets; ++t) {
    narrow_one(state, t, args.counts + (args.pass == 0 ? 0 : t * kDigitBins), args.pass);
  }
  if (args.pass + 1 == kDigitPasses) write_thresholds(state, args.num_targets, args.thresholds);
  return Status::kOk;
}

}  // namespace infobatch::cpu
