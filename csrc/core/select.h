// Rank and select: the place of the r-th one of a bit array, by a directory. It has one entry for each block of 512 bits, the
// number of ones before it, and one hint for each 512th one, the block that holds it. select starts between two hints.
#pragma once

#include "portable.h"

namespace infobatch {

inline constexpr int kBlockWords = 8;  // one cache line
inline constexpr int kBlockBits = 64 * kBlockWords;
inline constexpr int kHintStride = 512;  // not below kBlockBits: a block then holds one hint at most

// The ones are the bits of word & mask, and stand for items of 2^item_bits bits each: the kept bits of marks (one bit in four,
// item_bits 2), or all bits of a bitmap (item_bits 0). Words are padded with zeros to whole blocks.
struct BitIndex {
  const std::uint64_t* words;       // [num_blocks * 8]
  const std::int64_t* ones_before;  // [num_blocks + 1], the last entry is the total
  const std::uint32_t* hints;       // [num_blocks + 1], hint h is the block of one 512 h; entries past the last one unset
  std::int64_t num_blocks;
  std::uint64_t mask;
  std::uint32_t item_bits;
};

IB_HD int popcount64(std::uint64_t word) {
#if defined(__CUDA_ARCH__)
  return __popcll(static_cast<long long>(word));
#else
  return __builtin_popcountll(word);
#endif
}

// Place, in items, of the rank-th one (from 0) in a masked word that has more than `rank` ones: halvings by masks and not by
// branches, as each branch would be mispredicted half of the time.
IB_HD int select_in_word(std::uint64_t word, int rank, std::uint32_t item_bits) {
  int place = 0;
  for (int width = 32; width >> item_bits > 0; width >>= 1) {
    const int ones = popcount64(word & ((1ull << width) - 1));
    const int upper = ~((rank - ones) >> 31);
    rank -= ones & upper;
    place += width & upper;
    word >>= width & upper;
  }
  return place >> item_bits;
}

// Blocks [low, low + length) among which that of a wanted one is.
struct BlockRange {
  std::int64_t low, length;
};

IB_HD BlockRange blocks_between_hints(const BitIndex& index, std::int64_t rank) {
  const std::int64_t hint = rank / kHintStride, low = index.hints[hint];
  const bool last = (hint + 1) * kHintStride >= index.ones_before[index.num_blocks];
  return {low, (last ? index.num_blocks - 1 : index.hints[hint + 1]) - low + 1};
}

// The last block of the range with ones_before <= rank. Halving a range of one block is harmless, so the usual four halvings
// are done without asking whether they are needed.
IB_HD std::int64_t block_in_range(const BitIndex& index, BlockRange range, std::int64_t rank) {
  const auto halve = [&] {
    const std::int64_t half = range.length / 2;
    range.low += index.ones_before[range.low + half] <= rank ? half : 0;
    range.length -= half;
  };
  for (int i = 0; i < 4; ++i) halve();
  while (range.length > 1) halve();
  return range.low;
}

// The item of the rank-th one, which stands in `block`.
IB_HD std::int64_t item_in_block(const BitIndex& index, std::int64_t block, std::int64_t rank) {
  const int left = static_cast<int>(rank - index.ones_before[block]);
  const std::uint64_t* words = index.words + block * kBlockWords;
  int ones = 0, word = 0, ones_before_word = 0;
  for (int w = 0; w < kBlockWords - 1; ++w) {  // all words, since leaving early would cost a mispredicted branch
    ones += popcount64(words[w] & index.mask);
    word = ones <= left ? w + 1 : word;
    ones_before_word = ones <= left ? ones : ones_before_word;
  }
  return ((block * kBlockBits + word * 64) >> index.item_bits) +
         select_in_word(words[word] & index.mask, left - ones_before_word, index.item_bits);
}

IB_HD std::int64_t select_item(const BitIndex& index, std::int64_t rank) {
  return item_in_block(index, block_in_range(index, blocks_between_hints(index, rank), rank), rank);
}

}  // namespace infobatch
