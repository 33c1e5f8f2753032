// The draws of a plan, a tile of rows at a time.
#pragma once

#include "../core/tiers.h"

namespace infobatch::cpu {

inline constexpr int kTileRows = 128;
inline constexpr int kTileSlots = kTileRows * kRowSlots;  // draws and marks of a tile stay in the first-level cache

// lanes[kTileSlots]: the draws of the rows from `first_row`, slot by slot.
void draw_tile(std::uint64_t seed, std::uint32_t epoch, std::uint64_t first_row, std::uint16_t* lanes);

// The same where IB_VERSIONS is set, on processors with AVX2.
void draw_tile_avx2(PhiloxKey key, std::uint32_t epoch, std::uint64_t first_row, std::uint16_t* lanes);

}  // namespace infobatch::cpu
