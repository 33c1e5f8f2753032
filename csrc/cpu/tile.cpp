#include "tile.h"

namespace infobatch::cpu {
namespace {

// A round of an item waits for the one before, so the loops over the items are inside, and each does one round: the longer the
// chain of an item, the fewer chains a core overlaps.
struct Cells {
  alignas(64) std::uint32_t row[kTile], column[kTile];

  Cell operator[](int i) const { return {row[i], column[i]}; }
};

inline void split(const Permutation& p, const std::uint64_t* items, Cells& cells) {
  for (int i = 0; i < kTile; ++i) {
    const Cell cell = cell_of(p, items[i]);
    cells.row[i] = cell.row, cells.column[i] = cell.column;
  }
}

inline void join(const Permutation& p, const Cells& cells, std::uint64_t* items) {
  for (int i = 0; i < kTile; ++i) items[i] = item_of(p, cells[i]);
}

IB_MULTIVERSION void permute_all(const Permutation& p, std::uint32_t pass, std::uint64_t* items) {
  Cells cells;
  split(p, items, cells);
  for (int round = 0; round < kPassRounds; round += 2) {
    const std::uint32_t* keys = p.keys + pass * kPassRounds + round;
    for (int i = 0; i < kTile; ++i) cells.row[i] = move_row(p, keys[0], cells[i]);
    for (int i = 0; i < kTile; ++i) cells.column[i] = move_column(p, keys[1], cells[i]);
  }
  join(p, cells, items);
}

IB_MULTIVERSION void unpermute_all(const Permutation& p, std::uint32_t pass, std::uint64_t* items) {
  Cells cells;
  split(p, items, cells);
  for (int round = kPassRounds - 2; round >= 0; round -= 2) {
    const std::uint32_t* keys = p.keys + pass * kPassRounds + round;
    for (int i = 0; i < kTile; ++i) cells.column[i] = move_column_back(p, keys[1], cells[i]);
    for (int i = 0; i < kTile; ++i) cells.row[i] = move_row_back(p, keys[0], cells[i]);
  }
  join(p, cells, items);
}

// Whether any item has left the set. In large sets few tiles have such items, and this reads them all faster than branches
// would.
IB_MULTIVERSION bool any_outside(const Tile& tile, std::uint64_t size) {
  std::uint64_t outside = 0;
  for (int i = 0; i < kTile; ++i) outside |= tile.item[i] >= size;
  return outside != 0;
}

}  // namespace

void permute_tile(const Permutation& p, Tile& tile, int count) {
  for (std::uint32_t pass = 0; pass < p.passes; ++pass) permute_all(p, pass, tile.item);
  if (!any_outside(tile, p.size)) return;
  for (int i = 0; i < count; ++i) {
    while (tile.item[i] >= p.size) tile.item[i] = permute_once(p, tile.item[i]);
  }
}

void unpermute_tile(const Permutation& p, Tile& tile, int count) {
  for (std::uint32_t pass = p.passes; pass-- > 0;) unpermute_all(p, pass, tile.item);
  if (!any_outside(tile, p.size)) return;
  for (int i = 0; i < count; ++i) {
    while (tile.item[i] >= p.size) tile.item[i] = unpermute_once(p, tile.item[i]);
  }
}

IB_MULTIVERSION void locate_tile(const Shard& shard, const std::int64_t* ids, int count, std::int64_t* slots) {
  const std::uint64_t size = shard.deal.size, first_slot = static_cast<std::uint64_t>(shard.first_slot);
  const std::uint64_t num_slots = static_cast<std::uint64_t>(shard.num_slots);
  Tile tile;
  std::fill(tile.item + count, tile.item + kTile, 0);
  for (int i = 0; i < count; ++i) {
    const std::uint64_t id = static_cast<std::uint64_t>(ids[i]);  // a negative id is beyond any size
    tile.item[i] = id < size ? id : 0;
  }
  permute_tile(shard.deal, tile, count);
  for (int i = 0; i < count; ++i) {
    const std::uint64_t slot = tile.item[i] - first_slot;  // one below the first is beyond any number of slots
    const std::int64_t owned = slot < num_slots ? static_cast<std::int64_t>(slot) : kForeignSample;
    slots[i] = static_cast<std::uint64_t>(ids[i]) < size ? owned : kNoSuchSample;
  }
}

}  // namespace infobatch::cpu
