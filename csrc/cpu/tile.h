// Tiles of items through a permutation, vectorised: a whole tile passes the network at once, and the rare items that leave the
// set are walked back one by one.
#pragma once

#include "parallel.h"

namespace infobatch::cpu {

inline constexpr int kTile = 256;

struct Tile {
  alignas(64) std::uint64_t item[kTile];
};

// The first `count` items, each in [0, p.size), are replaced by permute(p, item), or by its inverse. Those behind them must be
// set to something, and mean nothing afterwards.
void permute_tile(const Permutation& p, Tile& tile, int count);
void unpermute_tile(const Permutation& p, Tile& tile, int count);

inline constexpr std::int64_t kForeignSample = -1, kNoSuchSample = -2;

// Local slots of sample ids, or one of the two negative codes. count <= kTile.
void locate_tile(const Shard& shard, const std::int64_t* ids, int count, std::int64_t* slots);

}  // namespace infobatch::cpu
