// Plan: one pass over the scores makes the marks; the directory makes the kept slots selectable.
#include <cstring>
#include <utility>

#include "draw.h"
#include "parallel.h"

namespace infobatch::cpu {
namespace {

constexpr std::int64_t kPieceBlocks = 1 << 12;  // blocks of the directory that are counted on their own: 32 KB of entries

struct Levels {
  float threshold[kMaxThresholds];
  std::uint32_t cutoff[kMaxTiers];
};

// Scores are below a threshold if their signed_key is below this. As integers: where torch flushes denormals, comparisons of
// floats do so too, on some threads. Zeros are not below each other, so a threshold of zero is the lower one.
std::int32_t key_of_threshold(float threshold) {
  return signed_key(bits_of(threshold) << 1 == 0 ? kMinusZeroBits : bits_of(threshold));
}

// The upper bits of the key, as many as Key has: all 32, or 16.
template <class Key>
Key upper_bits(std::int32_t key) {
  return static_cast<Key>(key >> (32 - 8 * sizeof(Key)));
}

// Whether no threshold has a bit in the lower half of its key, so that the upper halves decide; that of minus infinity is below
// those of all scores. The ends of bins, at which importance sampling cuts, are such thresholds.
bool halves_decide(const Levels& levels) {
  for (const float threshold : levels.threshold) {
    if (bits_of(threshold) != kMinusInfinityBits && (key_of_threshold(threshold) & 0xFFFF) != 0) return false;
  }
  return true;
}

// The marks of a tile under kThresholds thresholds. 16 bits are enough for a draw and its cutoff: that is at least 1, so lane <
// cutoff is lane <= cutoff - 1. Who is below a threshold is below those above it, so what the tiers differ by adds up.
template <int kThresholds, class Key>
[[gnu::always_inline]] inline void decide(const float* scores, const std::uint16_t* lanes, const Levels& levels,
                                          std::uint8_t* marks) {
  alignas(64) std::uint16_t below[kThresholds][kTileSlots], wide[kTileSlots];
  Key threshold[kThresholds];
  for (int i = 0; i < kThresholds; ++i) threshold[i] = upper_bits<Key>(key_of_threshold(levels.threshold[i]));
  for (int slot = 0; slot < kTileSlots; ++slot) {
    const Key key = upper_bits<Key>(signed_key(bits_of(scores[slot])));
    for (int i = 0; i < kThresholds; ++i) below[i][slot] = key < threshold[i] ? 0xFFFF : 0;
  }
  std::uint16_t more[kThresholds];  // than the last lane that is kept in the tier above, modulo 2^16
  for (int i = 0; i < kThresholds; ++i) more[i] = static_cast<std::uint16_t>(levels.cutoff[i + 1] - levels.cutoff[i]);
  const std::uint16_t top = static_cast<std::uint16_t>(levels.cutoff[0] - 1);
  for (int slot = 0; slot < kTileSlots; ++slot) {
    std::uint16_t last_kept = top, tier = 0;
    for (int i = 0; i < kThresholds; ++i) {
      const std::uint16_t mask = below[i][slot];
      last_kept = static_cast<std::uint16_t>(last_kept + (more[i] & mask));
      tier = static_cast<std::uint16_t>(tier - mask);
    }
    wide[slot] = static_cast<std::uint16_t>(make_mark(lanes[slot] <= last_kept, tier));
  }
  for (int i = 0; i < kTileSlots / 2; ++i) marks[i] = static_cast<std::uint8_t>(wide[2 * i] | wide[2 * i + 1] << kMarkBits);
}

IB_MULTIVERSION void decide_tile(const float* scores, const std::uint16_t* lanes, const Levels& levels, std::uint8_t* marks) {
  if (one_threshold(levels.threshold)) return decide<1, std::int32_t>(scores, lanes, levels, marks);
  if (halves_decide(levels)) return decide<kMaxThresholds, std::int16_t>(scores, lanes, levels, marks);
  decide<kMaxThresholds, std::int32_t>(scores, lanes, levels, marks);
}

// Protects the slots of `rows` rows.
IB_MULTIVERSION void protect_rows(const std::uint8_t* protect, std::int64_t rows, std::uint8_t* marks) {
  for (std::int64_t row = 0; row < rows; ++row) {
    std::uint32_t word;
    std::memcpy(&word, marks + row * sizeof word, sizeof word);
    word = protect_row(word, protect[row]);
    std::memcpy(marks + row * sizeof word, &word, sizeof word);
  }
}

// ones_before of blocks [begin, end), counted from zero at `begin`; the ones of all of them.
IB_MULTIVERSION std::int64_t count_ones(const IndexBits& args, std::int64_t begin, std::int64_t end) {
  std::int64_t ones = 0;
  for (std::int64_t block = begin; block < end; ++block) {
    args.ones_before[block] = ones;
    for (int w = 0; w < kBlockWords; ++w) ones += kept_in_word(args.words[block * kBlockWords + w]);
  }
  return ones;
}

// The entries behind the first one, raised by it, and the hints of all these blocks.
void write_directory(const IndexBits& args, std::int64_t num_blocks, std::int64_t begin, std::int64_t end) {
  const std::int64_t ones = args.ones_before[begin];
  for (std::int64_t block = begin + 1; block < end; ++block) args.ones_before[block] += ones;
  for (std::int64_t block = begin; block < end; ++block) {
    write_hints(args.hints, num_blocks, block, args.ones_before[block], args.ones_before[block + 1]);
  }
}

// Calls body(begin, end) for the pieces of all blocks, from several threads.
template <class Body>
void for_each_piece(std::int64_t num_blocks, int threads, const Body& body) {
  parallel_parts(num_blocks, kPieceBlocks, threads, [&](std::int64_t begin, std::int64_t end) {
    for (; begin < end; begin += kPieceBlocks) body(begin, std::min(begin + kPieceBlocks, end));
  });
}

// Marks are four bits wide, so 15 of them add up without a carry, for all marks of a word at once.
constexpr int kAddable = 15;
constexpr int kCounters = 7;  // tiers 1 to 3, kept ones of them, and all kept

// Sum of the 16 four-bit numbers in each of a block's words.
std::int64_t sum_of_marks(const std::uint64_t* block) {
  constexpr std::uint64_t bytes = 0x0F0F0F0F0F0F0F0Full;
  std::uint64_t sum = 0;
  for (int w = 0; w < kBlockWords; ++w) {
    sum += (((block[w] & bytes) + ((block[w] >> kMarkBits) & bytes)) * 0x0101010101010101ull) >> 56;  // at most 240
  }
  return static_cast<std::int64_t>(sum);
}

// counts[2, 4] += those of the marks in blocks [begin, end). Marks behind the last slot are zero: tier 0, not kept.
IB_MULTIVERSION void count_tiers_in(const std::uint64_t* words, std::int64_t begin, std::int64_t end, std::int64_t* counts) {
  for (std::int64_t first = begin; first < end; first += kAddable) {
    std::uint64_t sums[kCounters][kBlockWords] = {};
    for (std::int64_t block = first; block < std::min(first + kAddable, end); ++block) {
      for (int w = 0; w < kBlockWords; ++w) {
        const std::uint64_t word = words[block * kBlockWords + w], kept = word & kKeptMask;
        const std::uint64_t low = (word >> kTierShift) & kKeptMask, high = (word >> (kTierShift + 1)) & kKeptMask;
        sums[0][w] += low & ~high;
        sums[1][w] += high & ~low;
        sums[2][w] += low & high;
        sums[3][w] += low & ~high & kept;
        sums[4][w] += high & ~low & kept;
        sums[5][w] += low & high & kept;
        sums[6][w] += kept;
      }
    }
    for (int tier = 1; tier < kMaxTiers; ++tier) {
      const std::int64_t all = sum_of_marks(sums[tier - 1]), kept = sum_of_marks(sums[tier + 2]);
      counts[tier] += all;
      counts[0] -= all;
      counts[kMaxTiers + tier] += kept;
      counts[kMaxTiers] -= kept;
    }
    counts[kMaxTiers] += sum_of_marks(sums[6]);
  }
  counts[0] += (end - begin) * kBlockMarks;
}

void count_tiers(const IndexBits& args, std::int64_t num_blocks, int threads) {
  std::fill(args.counts, args.counts + kIndexCounts, 0);
  parallel_parts(num_blocks, kPieceBlocks, threads, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t counts[2 * kMaxTiers] = {};
    count_tiers_in(args.words, begin, end, counts);
    for (int i = 0; i < 2 * kMaxTiers; ++i) {
#pragma omp atomic
      args.counts[1 + i] += counts[i];
    }
  });
  args.counts[1] -= num_blocks * kBlockMarks - args.num_marks;  // the padding
}

}  // namespace

Status set_tiers(const SetTiers& args, int) {
  *args.tiers = tiers_of(args.cutoffs, args.scale);
  return Status::kOk;
}

Status draw_plan(const DrawPlan& args, int threads) {
  const std::uint32_t* const cutoff = args.tiers->cutoffs.of_tier;
  const Levels levels{{args.thresholds[0], args.thresholds[1], args.thresholds[2]},
                      {cutoff[0], cutoff[1], cutoff[2], cutoff[3]}};
  const std::int64_t bytes = mark_bytes(args.num_slots);
  parallel_parts(args.num_slots, 64 * kTileSlots, threads, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) std::uint16_t lanes[kTileSlots];
    for (std::int64_t slot = begin; slot < end; slot += kTileSlots) {
      fetch_ahead(args.scores + slot + kTileSlots, kTileSlots);
      draw_tile(args.seed, args.epoch, static_cast<std::uint64_t>(args.first_slot + slot) / kRowSlots, lanes);
      const std::int64_t filled = std::min<std::int64_t>(kTileSlots, end - slot);
      if (filled == kTileSlots) {
        decide_tile(args.scores + slot, lanes, levels, args.marks + slot / 2);
        if (args.protect) protect_rows(args.protect + slot / kRowSlots, kTileRows, args.marks + slot / 2);
        continue;
      }
      float scores[kTileSlots];
      std::uint8_t marks[kTileSlots / 2];
      for (int i = 0; i < kTileSlots; ++i) scores[i] = i < filled ? args.scores[slot + i] : float_of(kUnseenBits);
      decide_tile(scores, lanes, levels, marks);
      if (args.protect) protect_rows(args.protect + slot / kRowSlots, (filled + kRowSlots - 1) / kRowSlots, marks);
      for (std::int64_t i = filled; i < kTileSlots; ++i) marks[i / 2] &= static_cast<std::uint8_t>(i % 2 ? 0x0F : 0x00);
      std::copy(marks, marks + std::min<std::int64_t>(kTileSlots / 2, bytes - slot / 2), args.marks + slot / 2);
    }
  });
  return index_bits(args.index, threads);
}

// Each piece counts from zero, and leaves its ones where its first entry will be: those entries are added up, then the others.
Status index_bits(const IndexBits& args, int threads) {
  const std::int64_t blocks = num_blocks(args.num_marks);
  for_each_piece(blocks, threads, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t ones = count_ones(args, begin, end);
    args.ones_before[begin] = ones;
  });
  std::int64_t ones = 0;
  for (std::int64_t first = 0; first < blocks; first += kPieceBlocks) ones += std::exchange(args.ones_before[first], ones);
  args.ones_before[blocks] = ones;
  for_each_piece(blocks, threads, [&](std::int64_t begin, std::int64_t end) { write_directory(args, blocks, begin, end); });
  count_tiers(args, blocks, threads);
  args.counts[0] = ones;
  return Status::kOk;
}

}  // namespace infobatch::cpu
