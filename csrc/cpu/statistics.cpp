// Statistics of the scores: the exact sum behind the mean threshold, and radix selection behind the quantile tiers.
#include <bit>
#include <cstring>
#include <utility>

#include "parallel.h"

namespace infobatch::cpu {
namespace {

constexpr std::int64_t kGrain = 1 << 16;
constexpr std::int64_t kCountGrain = 1 << 22;  // below 2^32, the range of a bin

// A window is 28 neighbouring places of the mantissa: in units of the lowest of them, scores are below 2^51, and 512 of them
// below 2^60. The scores of a data set mostly lie that close to each other, so one vectorised pass takes a tile: it adds it up
// in the window that held the tile before, and finds out whether all of it lies there.
constexpr int kSumTile = 512;
constexpr std::uint32_t kWindow = 28, kFirstWindow = 106;  // where scores from 2^-20 to 2^8 are, at first

// Of scores that are seen and not zero. Without their signs, floats are ordered as their bits are.
struct TileSum {
  std::int64_t sum;  // right if the window holds all of them
  std::uint32_t smallest, largest, seen;
};

// Added to 1.5 * 2^52 units, a score that the window holds takes its place among the last bits of a double: no rounding, and
// the differences of the bits are whole units. All other numbers are signed ones of 32 bits, which the compiler vectorises.
IB_MULTIVERSION TileSum sum_tile(const float* scores, std::uint32_t window) {
  const double base = std::bit_cast<double>((std::uint64_t{1023 + 52 - 149} + window) << 52 | std::uint64_t{1} << 51);
  std::uint64_t sum = 0;
  std::int32_t below_smallest = 0x7FFFFFFF, largest = 0, seen = 0;
  for (int i = 0; i < kSumTile; ++i) {
    const std::int32_t bits = std::bit_cast<std::int32_t>(scores[i]), finite = (bits & 0x7FFFFFFF) < 0x7F800000 ? -1 : 0;
    const std::int32_t adding = bits & finite, size = adding & 0x7FFFFFFF;
    seen -= finite;
    below_smallest = std::min(below_smallest, static_cast<std::int32_t>(size + 0x7FFFFFFFu));  // a size of 0 comes last
    largest = std::max(largest, size);
    sum += std::bit_cast<std::uint64_t>(base + static_cast<double>(std::bit_cast<float>(adding)));
  }
  return {static_cast<std::int64_t>(sum - kSumTile * std::bit_cast<std::uint64_t>(base)),
          static_cast<std::uint32_t>(below_smallest) - 0x7FFFFFFFu, static_cast<std::uint32_t>(largest),
          static_cast<std::uint32_t>(seen)};
}

std::uint32_t place_of(std::uint32_t bits) { return mantissa_shift(exponent_of(bits)); }

// Subnormal scores are in no window: torch.set_flush_denormal makes zeros of them in arithmetic with floats.
bool has_subnormals(const TileSum& tile) { return exponent_of(tile.smallest) == 0; }

bool holds(std::uint32_t window, const TileSum& tile) {
  return !has_subnormals(tile) && place_of(tile.smallest) >= window && place_of(tile.largest) < window + kWindow;
}

// The sum of the scores in the window alone, by integers, for a tile that no window holds.
IB_MULTIVERSION std::int64_t sum_window(const float* scores, std::uint32_t window) {
  std::int64_t sum = 0;
  for (int i = 0; i < kSumTile; ++i) {
    const std::uint32_t bits = bits_of(scores[i]), place = mantissa_shift(exponent_of(bits)) - window;
    const std::int64_t mantissa = place < kWindow && is_finite_bits(bits) ? signed_mantissa(bits) : 0;
    sum += static_cast<std::int64_t>(static_cast<std::uint64_t>(mantissa) << (place % 32));  // zero where % acts
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
  if (tile.largest == 0) return;
  if (!holds(window, tile)) {
    const std::uint32_t lowest = place_of(tile.smallest), highest = place_of(tile.largest);
    if (has_subnormals(tile) || highest - lowest >= kWindow) {
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

// Histograms of a grain, in 32 bits. Where neighbours share a digit an addition waits for the one before, so there may be
// copies.
template <int kCopies>
struct DigitCounts {
  std::uint32_t bin[kCopies][kDigitBins] = {};

  void add_to(std::int64_t* counts, int first, int last) const {
    for (int digit = first; digit < last; ++digit) {
      std::int64_t count = 0;
      for (int copy = 0; copy < kCopies; ++copy) count += bin[copy][digit];
      if (count == 0) continue;
#pragma omp atomic
      counts[digit] += count;
    }
  }
};

constexpr int kCopies = 4;

IB_MULTIVERSION void first_digits(const float* scores, std::uint16_t* digits) {
  for (int i = 0; i < kSumTile; ++i) digits[i] = static_cast<std::uint16_t>(digit_of(ordered_key(bits_of(scores[i])), 0));
}

// matches[i]: score i shares the leading bits.
IB_MULTIVERSION void match_prefix(const float* scores, std::uint32_t mask, std::uint32_t prefix, std::uint8_t* matches) {
  for (int i = 0; i < kSumTile; ++i) matches[i] = (ordered_key(bits_of(scores[i])) & mask) == prefix;
}

// Few scores match, so eight answers at a time are looked at.
void count_matches(const float* scores, const std::uint8_t* matches, int pass, DigitCounts<1>& counts) {
  for (int i = 0; i < kSumTile; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, matches + i, 8);
    for (; eight != 0; eight &= eight - 1) {
      const float score = scores[i + __builtin_ctzll(eight) / 8];
      counts.bin[0][digit_of(ordered_key(bits_of(score)), pass)] += 1;
    }
  }
}

// The digits of protected samples, a bit each in `bits`, become one of their own.
void set_apart(const std::uint8_t* bits, int num_slots, std::uint16_t* digits) {
  for (int row = 0; row * kRowSlots < num_slots; ++row) {
    for (unsigned left = bits[row]; left != 0; left &= left - 1) {
      std::uint16_t& digit = digits[row * kRowSlots + std::countr_zero(left)];
      if (digit < kEndOfFinite) digit = kProtectedDigit;
    }
  }
}

void count_first_digits(const DigitPass& args, const float* scores, std::int64_t first, DigitCounts<kCopies>& counts) {
  std::uint16_t digits[kSumTile];
  first_digits(scores, digits);
  if (args.protect) {
    const int slots = static_cast<int>(std::min<std::int64_t>(kSumTile, args.num_slots - first));
    set_apart(args.protect + first / kRowSlots, slots, digits);
  }
  for (int i = 0; i < kSumTile; i += kCopies) {
    for (int copy = 0; copy < kCopies; ++copy) counts.bin[copy][digits[i + copy]] += 1;
  }
}

void count_candidates(const DigitPass& args, const float* scores, DigitCounts<1>* counts) {
  for (int t = 0; t < args.num_targets; ++t) {
    std::uint8_t matches[kSumTile];
    match_prefix(scores, prefix_mask(args.pass), static_cast<std::uint32_t>(args.state->prefix[t]), matches);
    count_matches(scores, matches, args.pass, counts[t]);
  }
}

// Calls body(begin, end) for parts of the table in which 32 bits count all scores, from several threads.
template <class Body>
void for_each_grain(std::int64_t num_slots, int threads, const Body& body) {
  parallel_parts(num_slots, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    for (; begin < end; begin += kCountGrain) body(begin, std::min(begin + kCountGrain, end));
  });
}

}  // namespace

Status sum_scores(const SumScores& args, int threads) {
  std::fill(args.sum, args.sum + kSumWords, 0);
  parallel_parts(args.num_slots, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t words[kSumWords] = {};
    std::uint32_t window = kFirstWindow;
    for_each_tile<kSumTile>(args.scores, begin, end, [&](const float* tile, std::int64_t) { add_tile(tile, window, words); });
    carry_limbs(words);
    for (int i = 0; i < kSumWords; ++i) {
#pragma omp atomic
      args.sum[i] += words[i];
    }
  });
  return args.thresholds ? mean_threshold({args.sum, args.thresholds}, threads) : Status::kOk;
}

Status mean_threshold(const MeanThreshold& args, int) {
  args.thresholds[0] = infobatch::mean_threshold(args.sum);
  args.thresholds[1] = args.thresholds[2] = float_of(kMinusInfinityBits);
  return Status::kOk;
}

Status count_digits(const DigitPass& args, int threads) {
  if (args.pass == 0) {
    std::fill(args.counts, args.counts + kDigitWords, 0);
    for_each_grain(args.num_slots, threads, [&](std::int64_t begin, std::int64_t end) {
      DigitCounts<kCopies> counts;
      for_each_tile<kSumTile>(args.scores, begin, end,
                              [&](const float* tile, std::int64_t first) { count_first_digits(args, tile, first, counts); });
      counts.add_to(counts_of(args, 0), kFirstFinite, kEndOfSeen);
    });
  } else {
    for_each_grain(args.num_slots, threads, [&](std::int64_t begin, std::int64_t end) {
      DigitCounts<1> counts[kMaxThresholds];
      for_each_tile<kSumTile>(args.scores, begin, end,
                              [&](const float* tile, std::int64_t) { count_candidates(args, tile, counts); });
      for (int t = 0; t < args.num_targets; ++t) counts[t].add_to(counts_of(args, t), 0, kDigitBins);
    });
  }
  return args.alone ? narrow_quantiles(args, threads) : Status::kOk;
}

Status narrow_quantiles(const DigitPass& args, int) {
  QuantileState& state = *args.state;
  if (args.pass == 0) start_quantiles(state, counts_of(args, 0), args.fractions, args.num_targets);
  for (int t = 0; t < args.num_targets; ++t) narrow_one(state, t, counts_of(args, t), args.pass);
  if (args.pass + 1 == kDigitPasses) write_thresholds(state, args.num_targets, args.thresholds);
  return Status::kOk;
}

}  // namespace infobatch::cpu
