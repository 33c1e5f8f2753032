// Rank and select: the slot of the r-th kept mark, by a directory of the marks. It has one entry for each block of 128 marks,
// the number of kept ones before it, and one hint for each 128th kept mark, the block that holds it. select starts between two
// hints, which are two or three blocks apart where about half of the marks are kept.
#pragma once

#include "marks.h"

namespace infobatch {

inline constexpr int kBlockWords = 8;  // one cache line
inline constexpr int kBlockBits = 64 * kBlockWords;
inline constexpr int kBlockMarks = kBlockBits / kMarkBits;
inline constexpr int kWordMarks = kBlockMarks / kBlockWords;
inline constexpr int kHintStride = kBlockMarks;  // not below that: a block holds one hint at most

// Marks are padded with zeros to whole blocks.
struct BitIndex {
  const std::uint64_t* words;       // [num_blocks * 8]
  const std::int64_t* ones_before;  // [num_blocks + 1], the last entry is the total
  const std::uint32_t* hints;       // [num_blocks + 1], as `write_hints` leaves them
  std::int64_t num_blocks;
};

IB_HD int popcount64(std::uint64_t word) {
#if defined(__CUDA_ARCH__)
  return __popcll(static_cast<long long>(word));
#else
  return __builtin_popcountll(word);
#endif
}

IB_HD int kept_in_word(std::uint64_t word) { return popcount64(word & kKeptMask); }

// The hints of one block, which holds the kept marks [before, after). Hint h is the block of kept mark h * kHintStride; behind
// the last hint stands the last block, so that every hint has one after it.
IB_HD void write_hints(std::uint32_t* hints, std::int64_t num_blocks, std::int64_t block, std::int64_t before,
                       std::int64_t after) {
  const std::int64_t hint = (before + kHintStride - 1) / kHintStride;
  if (hint * kHintStride < after) hints[hint] = static_cast<std::uint32_t>(block);
  if (block == num_blocks - 1) hints[(after + kHintStride - 1) / kHintStride] = static_cast<std::uint32_t>(block);
}

// Blocks [low, low + length) among which that of a wanted mark is.
struct BlockRange {
  std::int64_t low;
  std::uint32_t length;
};

// Whatever the directory holds, the range is one of its blocks: select reads no other memory.
IB_HD BlockRange blocks_between_hints(const BitIndex& index, std::int64_t rank) {
  const std::uint32_t* hint = index.hints + static_cast<std::uint64_t>(rank) / kHintStride;
  const std::uint32_t last = static_cast<std::uint32_t>(index.num_blocks - 1);
  const std::uint32_t low = hint[0] < last ? hint[0] : last;
  const std::uint32_t above = hint[1] - low, most = last - low;  // one that is below `low` wraps
  return {low, (above < most ? above : most) + 1};
}

// The last block of the range with ones_before <= rank. Halving a range of one block is harmless, so the usual two halvings are
// done without asking whether they are needed.
IB_HD std::int64_t block_in_range(const BitIndex& index, BlockRange range, std::int64_t rank) {
  const auto halve = [&] {
    const std::uint32_t half = range.length / 2;
    range.low += index.ones_before[range.low + half] <= rank ? half : 0;
    range.length -= half;
  };
  for (int i = 0; i < 2; ++i) halve();
  while (range.length > 1) halve();
  return range.low;
}

// Two selects among up to 128, each in a word of counters: one product adds up all counters below each one, one subtraction
// compares all of these sums with `rank`, and the answer is how many are not above it. No step waits for a line of memory or
// guesses a branch.
inline constexpr std::uint64_t kEachByte = 0x0101010101010101ull, kTopBits = 0x80 * kEachByte;

// Bytes of `rank`, less the bytes of `sums`, leave the top bit where rank >= sum. Both below 128.
IB_HD std::uint64_t not_above(std::uint64_t sums, int rank) {
  return (((static_cast<std::uint64_t>(rank) * kEachByte) | kTopBits) - sums) & kTopBits;
}

// The slot of the rank-th kept mark, which stands in `block`.
IB_HD std::int64_t slot_in_block(const BitIndex& index, std::int64_t block, std::int64_t rank) {
  const std::uint64_t* words = index.words + block * kBlockWords;
  const int left = static_cast<int>(rank - index.ones_before[block]);
  // Of the first seven words, whose sums stay below 128. Where none of these is above `left`, it is the last word.
  std::uint64_t counts = 0;
  for (int w = 0; w < kBlockWords - 1; ++w) counts |= static_cast<std::uint64_t>(kept_in_word(words[w])) << (8 * w);
  const std::uint64_t sums = counts * kEachByte;
  const int word = popcount64(not_above(sums, left) & (kTopBits >> 8));
  const int rest = left - static_cast<int>(((sums << 8) >> (8 * word)) & 0xFF);

  // Sums over the marks of the word, four bits wide. The topmost may be 16 and overflow; it is not asked.
  const std::uint64_t up_to = (words[word] & kKeptMask) * kKeptMask, low_halves = 0x0F * kEachByte;
  const std::uint64_t even = not_above(up_to & low_halves, rest);
  const std::uint64_t odd = not_above((up_to >> 4) & low_halves, rest) & (kTopBits >> 8);
  return block * kBlockMarks + word * kWordMarks + popcount64(even | (odd >> 1));
}

IB_HD std::int64_t select_slot(const BitIndex& index, std::int64_t rank) {
  return slot_in_block(index, block_in_range(index, blocks_between_hints(index, rank), rank), rank);
}

}  // namespace infobatch
