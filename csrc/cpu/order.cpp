// Order: positions of the epoch -> sample ids, a tile at a time.
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

Status mark_remaining(const MarkRemaining& args, int threads) {
  const std::int64_t positions = static_cast<std::int64_t>(args.epoch.shuffle.size);
  std::fill(args.remaining, args.remaining + mark_bytes(positions), std::uint8_t{0});
  parallel_parts(positions, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    Tile tile{};
    for (std::int64_t start = begin; start < end; start += kTile) {
      const int filled = static_cast<int>(std::min<std::int64_t>(kTile, end - start));
      for (int i = 0; i < filled; ++i) tile.item[i] = static_cast<std::uint64_t>(start + i);
      slots_of_positions(args.epoch, tile, filled);
      for (int i = 0; i < filled; ++i) {
        const std::int64_t place = start + i;
        const bool visited = (mark_at(args.marks, tile.item[i]) & kVisitedMark) != 0;
        if (!visited) args.remaining[place / 2] |= static_cast<std::uint8_t>(kKeptMark << (kMarkBits * (place % 2)));
      }
    }
  });
  return Status::kOk;
}

}  // namespace infobatch::cpu
