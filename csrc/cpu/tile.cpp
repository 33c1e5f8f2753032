#include "tile.h"

namespace infobatch::cpu {
namespace {

// By value, so that the keys stay in registers.
IB_MULTIVERSION void permute_all(const Permutation p, std::uint32_t pass, std::uint64_t* items) {
  for (int i = 0; i < kTile; ++i) items[i] = permute_pass(p, pass, items[i]);
}

IB_MULTIVERSION void unpermute_all(const Permutation p, std::uint32_t pass, std::uint64_t* items) {
  for (int i = 0; i < kTile; ++i) items[i] = unpermute_pass(p, pass, items[i]);
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
