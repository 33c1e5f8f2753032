// Order: positions of the epoch -> sample ids, a tile at a time.
//
// What remains is found the other way round: from slots to positions. The table is then read as it lies, and writes of bits
// alone are at random, which wait for nothing.
#include <atomic>
#include <cstring>

#include "tile.h"

namespace infobatch::cpu {
namespace {

constexpr std::int64_t kGrain = 16 * kTile;

// Slots of ranks (in place), in three steps, of which each asks for the lines that the next one reads. Groups of 16 ranks take
// turns, so that one is computed while the lines of another are under way; larger ones would wait for a free line buffer.
IB_MULTIVERSION void select_tile(const BitIndex index, std::uint64_t* ranks, int count) {
  constexpr int group = 16;
  BlockRange ranges[kTile];
  std::int64_t blocks[kTile];
  for (int first = 0; first < count + 2 * group; first += group) {
    for (int i = first; i < std::min(first + group, count); ++i) {
      ranges[i] = blocks_between_hints(index, static_cast<std::int64_t>(ranks[i]));
      __builtin_prefetch(index.ones_before + ranges[i].low + ranges[i].length / 2);
    }
    for (int i = std::max(first - group, 0); i < std::min(first, count); ++i) {
      blocks[i] = block_in_range(index, ranges[i], static_cast<std::int64_t>(ranks[i]));
      __builtin_prefetch(index.words + blocks[i] * kBlockWords);
    }
    for (int i = std::max(first - 2 * group, 0); i < std::min(first - group, count); ++i) {
      ranks[i] = static_cast<std::uint64_t>(slot_in_block(index, blocks[i], static_cast<std::int64_t>(ranks[i])));
    }
  }
}

// Slots behind the last one, which only a directory that was written over leads to, become that one.
IB_MULTIVERSION void clamp_tile(std::int64_t last_slot, std::uint64_t* slots) {
  for (int i = 0; i < kTile; ++i) {
    const std::int64_t slot = static_cast<std::int64_t>(slots[i]);
    slots[i] = static_cast<std::uint64_t>(slot < last_slot ? slot : last_slot);
  }
}

// Positions -> local slots, which exist whatever the directory holds: the permutation of others need not end.
void slots_of_positions(const EpochOrder& epoch, Tile& tile, int count) {
  const std::uint64_t kept = epoch.shuffle.size;
  for (int i = 0; i < count; ++i) tile.item[i] = tile.item[i] < kept ? tile.item[i] : tile.item[i] % kept;
  permute_tile(epoch.shuffle, tile, count);
  select_tile(epoch.kept, tile.item, count);
  clamp_tile(epoch.shard.num_slots - 1, tile.item);
}

constexpr std::int64_t kClearGrain = 1 << 20, kRemainingGrain = 64;

// Marks positions of kept ranks as those that remain. A tile is marked after the next one was computed, so that its lines have
// come by then. Other threads mark other positions in the same bytes.
class RemainingTiles {
 public:
  explicit RemainingTiles(const MarkRemaining& args) : shuffle_(args.epoch.shuffle), remaining_(args.remaining) {}

  void add(std::int64_t rank) {
    tiles_[now_].item[filled_++] = static_cast<std::uint64_t>(rank);
    if (filled_ == kTile) turn();
  }

  // Turns the marks of what was added and is not turned yet.
  void end() {
    turn();
    turn();
  }

 private:
  void turn() {
    Tile& tile = tiles_[now_];
    unpermute_tile(shuffle_, tile, filled_);
    for (int i = 0; i < filled_; ++i) __builtin_prefetch(remaining_ + tile.item[i] / 2, 1);
    now_ = 1 - now_;
    for (int i = 0; i < filled_before_; ++i) {
      const std::uint64_t position = tiles_[now_].item[i];
      const auto mark = static_cast<std::uint8_t>(kKeptMark << (kMarkBits * (position % 2)));
      __atomic_fetch_xor(remaining_ + position / 2, mark, __ATOMIC_RELAXED);
    }
    filled_before_ = filled_;
    filled_ = 0;
  }

  const Permutation& shuffle_;
  std::uint8_t* const remaining_;
  Tile tiles_[2]{};
  int now_ = 0, filled_ = 0, filled_before_ = 0;
};

}  // namespace

Status order(const Order& args, int threads) {
  parallel_parts(args.count, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    Tile tile{};
    for (std::int64_t start = begin; start < end; start += kTile) {
      const int filled = static_cast<int>(std::min<std::int64_t>(kTile, end - start));
      for (int i = 0; i < filled; ++i) tile.item[i] = static_cast<std::uint64_t>(args.start + start + i);
      if (args.remaining) select_tile(*args.remaining, tile.item, filled);
      slots_of_positions(args.epoch, tile, filled);
      for (int i = 0; i < filled; ++i) tile.item[i] += static_cast<std::uint64_t>(args.epoch.shard.first_slot);
      unpermute_tile(args.epoch.shard.deal, tile, filled);
      for (int i = 0; i < filled; ++i) args.ids[start + i] = static_cast<std::int64_t>(tile.item[i]);
    }
  });
  return Status::kOk;
}

// Finding a position is what takes time, so it is done for the visited slots or for the others, whichever are fewer.
Status mark_remaining(const MarkRemaining& args, int threads) {
  const BitIndex& kept = args.epoch.kept;
  const auto visited_in_word = [&](std::int64_t w) {
    std::uint64_t word;
    std::memcpy(&word, args.marks + w * sizeof word, sizeof word);
    return kept.words[w] & kKeptMask & (word / kVisitedMark);
  };
  std::atomic<std::int64_t> visited{0};
  parallel_parts(kept.num_blocks, kRemainingGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t of_part = 0;
    for (std::int64_t w = begin * kBlockWords; w < end * kBlockWords; ++w) of_part += popcount64(visited_in_word(w));
    visited += of_part;
  });
  const std::int64_t positions = static_cast<std::int64_t>(args.epoch.shuffle.size);
  const bool turns_visited = 2 * visited < positions;
  const std::uint64_t turned_if_visited = turns_visited ? 0 : kKeptMask;
  const std::uint8_t start = turns_visited ? static_cast<std::uint8_t>(kKeptMask) : 0;
  parallel_parts(mark_bytes(positions), kClearGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t byte = begin; byte < end; ++byte) args.remaining[byte] = byte < positions / 2 ? start : 0;
  });
  if (positions % 2) args.remaining[positions / 2] = start & 0xFu;
  parallel_parts(kept.num_blocks, kRemainingGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    RemainingTiles tiles(args);
    std::int64_t rank = kept.ones_before[begin];
    for (std::int64_t w = begin * kBlockWords; w < end * kBlockWords; ++w) {
      const std::uint64_t of_word = kept.words[w] & kKeptMask;
      for (std::uint64_t left = of_word & (visited_in_word(w) ^ turned_if_visited); left != 0; left &= left - 1) {
        tiles.add(rank + popcount64(of_word & ((left & -left) - 1)));
      }
      rank += popcount64(of_word);
    }
    tiles.end();
  });
  return Status::kOk;
}

}  // namespace infobatch::cpu
