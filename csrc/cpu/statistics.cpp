// Statistics of the scores: the exact sum behind the mean threshold, and radix selection behind the quantile tiers.
#include <cstring>

#include "parallel.h"

namespace infobatch::cpu {
namespace {

constexpr std::int64_t kGrain = 1 << 16;
constexpr std::int64_t kCountGrain = 1 << 22;  // below 2^32, the range of a bin

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

// Histograms of a grain, in 32 bits; in two copies, as neighbours often share a digit and an addition waits for the one before.
struct DigitCounts {
  std::uint32_t bin[2][kDigitBins] = {};

  void add_to(std::int64_t* counts, int first, int last) const {
    for (int digit = first; digit < last; ++digit) {
      const std::int64_t count = static_cast<std::int64_t>(bin[0][digit]) + bin[1][digit];
      if (count == 0) continue;
#pragma omp atomic
      counts[digit] += count;
    }
  }
};

// In the first digit NaN and the infinities have bins of their own, at both ends.
constexpr int kFirstFinite = 4, kLastFinite = 0x7FC;

IB_MULTIVERSION void first_digits(const float* scores, std::uint16_t* digits) {
  for (int i = 0; i < kSumTile; ++i) digits[i] = static_cast<std::uint16_t>(digit_of(ordered_key(bits_of(scores[i])), 0));
}

// matches[i]: score i shares the leading bits. Unseen ones never do, as all exponent bits are among those.
IB_MULTIVERSION void match_prefix(const float* scores, std::uint32_t mask, std::uint32_t prefix, std::uint8_t* matches) {
  for (int i = 0; i < kSumTile; ++i) matches[i] = (ordered_key(bits_of(scores[i])) & mask) == prefix;
}

// Few scores match, so eight answers at a time are looked at.
void count_matches(const float* scores, const std::uint8_t* matches, int pass, DigitCounts& counts) {
  for (int i = 0; i < kSumTile; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, matches + i, 8);
    for (; eight != 0; eight &= eight - 1) {
      const float score = scores[i + __builtin_ctzll(eight) / 8];
      counts.bin[0][digit_of(ordered_key(bits_of(score)), pass)] += 1;
    }
  }
}

void count_tile(const CountDigits& args, const float* scores, int targets, DigitCounts* counts) {
  if (args.pass == 0) {
    std::uint16_t digits[kSumTile];
    first_digits(scores, digits);
    for (int i = 0; i < kSumTile; i += 2) {
      counts->bin[0][digits[i]] += 1;
      counts->bin[1][digits[i + 1]] += 1;
    }
    return;
  }
  for (int t = 0; t < targets; ++t) {
    std::uint8_t matches[kSumTile];
    match_prefix(scores, prefix_mask(args.pass), static_cast<std::uint32_t>(args.state->prefix[t]), matches);
    count_matches(scores, matches, args.pass, counts[t]);
  }
}

// Calls body(tile) for all tiles of [begin, end); the last one is filled up with unseen scores.
template <class Body>
void for_each_tile(const float* scores, std::int64_t begin, std::int64_t end, const Body& body) {
  for (; begin + kSumTile <= end; begin += kSumTile) body(scores + begin);
  if (begin == end) return;
  float last[kSumTile];
  std::fill(std::copy(scores + begin, scores + end, last), last + kSumTile, float_of(kUnseenBits));
  body(last);
}

}  // namespace

Status sum_scores(const SumScores& args, int threads) {
  std::fill(args.sum, args.sum + kSumWords, 0);
  parallel_parts(args.num_slots, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t words[kSumWords] = {};
    for_each_tile(args.scores, begin, end, [&](const float* tile) { add_tile(tile, words); });
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
    for (std::int64_t grain = begin; grain < end; grain += kCountGrain) {
      DigitCounts counts[kMaxThresholds];
      for_each_tile(args.scores, grain, std::min(grain + kCountGrain, end),
                    [&](const float* tile) { count_tile(args, tile, targets, counts); });
      const bool first = args.pass == 0;
      for (int t = 0; t < targets; ++t) {
        counts[t].add_to(args.counts + t * kDigitBins, first ? kFirstFinite : 0, first ? kLastFinite : kDigitBins);
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
