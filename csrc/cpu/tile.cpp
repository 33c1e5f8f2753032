#include "tile.h"

namespace infobatch::cpu {
namespace {

// A round of an item waits for the one before, so the loops over the items are inside: their chains run side by side.
struct Cells {
  alignas(64) std::uint32_t row[kTile], column[kTile];
};

inline void split(const Permutation& p, const std::uint64_t* items, Cells& cells) {
  for (int i = 0; i < kTile; ++i) {
    const Cell cell = cell_of(p, items[i]);
    cells.row[i] = cell.row, cells.column[i] = cell.column;
  }
}

inline void join(const Permutation& p, const Cells& cells, std::uint64_t* items) {
  for (int i = 0; i < kTile; ++i) items[i] = item_of(p, {cells.row[i], cells.column[i]});
}

IB_MULTIVERSION void permute_all(const Permutation& p, std::uint32_t pass, std::uint64_t* items) {
  Cells cells;
  split(p, items, cells);
  for (int round = 0; round < kPassRounds; round += 2) {
    const std::uint32_t* keys = p.keys + pass * kPassRounds + round;
    for (int i = 0; i < kTile; ++i) {
      const Cell cell = move_cell(p, keys, {cells.row[i], cells.column[i]});
      cells.row[i] = cell.row, cells.column[i] = cell.column;
    }
  }
  join(p, cells, items);
}

IB_MULTIVERSION void unpermute_all(const Permutation& p, std::uint32_t pass, std::uint64_t* items) {
  Cells cells;
  split(p, items, cells);
  for (int round = kPassRounds - 2; round >= 0; round -= 2) {
    const std::uint32_t* keys = p.keys + pass * kPassRounds + round;
    for (int i = 0; i < kTile; ++i) {
      const Cell cell = move_cell_back(p, keys, {cells.row[i], cells.column[i]});
      cells.row[i] = cell.row, cells.column[i] = cell.column;
    }
  }
  join(p, cells, items);
}

}  // namespace

void permute_tile(const Permutation& p, Tile& tile, int count) {
  for (std::uint32_t pass = 0; pass < p.passes; ++pass) permute_all(p, pass, tile.item);
  for (int i = 0; i < count; ++i) {
    while (tile.item[i] >= p.size) tile.item[i] = permute_once(p, tile.item[i]);
  }
}

void unpermute_tile(const Permutation& p, Tile& tile, int count) {
  for (std::uint32_t pass = p.passes; pass-- > 0;) unpermute_all(p, pass, tile.item);
  for (int i = 0; i < count; ++i) {
    while (tile.item[i] >= p.size) tile.item[i] = unpermute_once(p, tile.item[i]);
  }
}

IB_MULTIVERSION void locate_tile(const Shard& shard, const std::int64_t* ids, int count, std::int64_t* slots) {
  const std::uint64_t size = shard.deal.size;
  Tile tile;
  for (int i = 0; i < count; ++i) {
    const std::uint64_t id = static_cast<std::uint64_t>(ids[i]);  // a negative id is beyond any size
    tile.item[i] = id < size ? id : 0;
  }
  permute_tile(shard.deal, tile, count);
  for (int i = 0; i < count; ++i) {
    const std::int64_t slot = static_cast<std::int64_t>(tile.item[i]) - shard.first_slot;
    const bool owned = slot >= 0 && slot < shard.num_slots;
    slots[i] = static_cast<std::uint64_t>(ids[i]) >= size ? kNoSuchSample : owned ? slot : kForeignSample;
  }
}

}  // namespace infobatch::cpu
