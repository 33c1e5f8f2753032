// Statistics of the scores: the exact sum behind the mean threshold, and radix selection behind the quantile tiers.
#include <cstring>
#include <utility>

#include "parallel.h"

namespace infobatch::cpu {
namespace {

constexpr std::int64_t kGrain = 1 << 16;
constexpr std::int64_t kCountGrain = 1 << 22;  // below 2^32, the range of a bin

// A window is 32 neighbouring places of the mantissa: shifted to the lowest of them, mantissas are below 2^55, and 256 of them
// below 2^63. The scores of a data set mostly lie within 2^32 of each other, so one vectorised pass takes a tile: it adds it up
// in the window that held the tile before, and finds out whether all of it lies there.
constexpr int kSumTile = 256;
constexpr std::uint32_t kWindow = 32, kFirstWindow = 112;  // where scores from 2^-14 to 2^17 are, at first

struct TileSum {
  std::int64_t sum;  // right if nothing is outside
  std::uint32_t outside, seen;
};

// All ones for a score that adds something, else 0: unseen ones and zeros add nothing, wherever they stand. By arithmetic, as a
// condition would leave the loop scalar.
std::uint32_t adding_mask(std::uint32_t bits) {
  const std::uint32_t finite = 1u - ((exponent_of(bits) + 1u) >> 8), nonzero = ((bits & 0x7FFFFFFFu) + 0x7FFFFFFFu) >> 31;
  return 0u - (finite & nonzero);
}

IB_MULTIVERSION TileSum sum_tile(const float* scores, std::uint32_t window) {
  std::int64_t sum = 0;
  std::uint32_t outside = 0, seen = 0;
  for (int i = 0; i < kSumTile; ++i) {
    const std::uint32_t bits = bits_of(scores[i]), exponent = exponent_of(bits), place = mantissa_shift(exponent) - window;
    const std::uint32_t adding = adding_mask(bits);
    seen += 1u - ((exponent + 1u) >> 8);
    outside |= place & adding;
    const std::int64_t mantissa = signed_mantissa(bits) & static_cast<std::int32_t>(adding);
    sum += static_cast<std::int64_t>(static_cast<std::uint64_t>(mantissa) << (place % kWindow));
  }
  return {sum, outside & ~(kWindow - 1), seen};
}

// The lowest and the highest place that scores of a tile have; some of them are not zero.
IB_MULTIVERSION std::pair<std::uint32_t, std::uint32_t> range_of_tile(const float* scores) {
  std::int32_t lowest = 0xFF, highest = 0;  // signed, as the compiler vectorises no unsigned minimum here
  for (int i = 0; i < kSumTile; ++i) {
    const std::uint32_t bits = bits_of(scores[i]), shift = mantissa_shift(exponent_of(bits)), adding = adding_mask(bits);
    lowest = std::min(lowest, static_cast<std::int32_t>(shift | (~adding & 0xFFu)));
    highest = std::max(highest, static_cast<std::int32_t>(shift & adding));
  }
  return {lowest, highest};
}

// The same of the scores in the window alone, for a tile that reaches beyond.
IB_MULTIVERSION std::int64_t sum_window(const float* scores, std::uint32_t window) {
  std::int64_t sum = 0;
  for (int i = 0; i < kSumTile; ++i) {
    const std::uint32_t bits = bits_of(scores[i]), shift = mantissa_shift(exponent_of(bits));
    const bool inside = shift - window < kWindow && is_finite_bits(bits);
    const std::int64_t mantissa = inside ? signed_mantissa(bits) : 0;
    sum += static_cast<std::int64_t>(static_cast<std::uint64_t>(mantissa) << ((shift - window) % kWindow));
  }
  return sum;
}

// words += sum * 2^window, in parts below 2^32 for each limb.
void add_window(std::int64_t sum, std::uint32_t window, std::int64_t* words) {
  const std::uint32_t limb = window / 32, offset = window % 32;
  const std::uint64_t low = (static_cast<std::uint64_t>(sum) & 0xFFFFFFFFull) << offset;
  const std::int64_t high = (sum >> 32) * (std::int64_t{1} << offset) + static_cast<std::int64_t>(low >> 32);
  words[limb] += static_cast<std::int64_t>(low & 0xFFFFFFFFull);
  words[limb + 1] += high & 0xFFFFFFFFll;
  words[limb + 2] += high >> 32;
}

// `window` is a guess for this tile, and then for the next one.
void add_tile(const float* scores, std::uint32_t& window, std::int64_t* words) {
  TileSum tile = sum_tile(scores, window);
  words[kLimbs] += tile.seen;
  if (tile.outside) {
    const auto [lowest, highest] = range_of_tile(scores);
    if (highest - lowest >= kWindow) {
      for (std::uint32_t each = lowest / kWindow * kWindow; each <= highest; each += kWindow) {
        add_window(sum_window(scores, each), each, words);
      }
      return;
    }
    const std::uint32_t middle = (lowest + highest) / 2;
    window = middle >= kWindow / 2 ? middle - kWindow / 2 + 1 : 0;
    tile = sum_tile(scores, window);
  }
  add_window(tile.sum, window, words);
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
    std::uint32_t window = kFirstWindow;
    for_each_tile(args.scores, begin, end, [&](const float* tile) { add_tile(tile, window, words); });
    carry_limbs(words);
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
