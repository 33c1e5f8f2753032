#include "draw.h"

#include "versions.h"

namespace infobatch::cpu {
namespace {

IB_MULTIVERSION void draw_tile_compiled(std::uint64_t seed, std::uint32_t epoch, std::uint64_t first_row,
                                        std::uint16_t* lanes) {
  for (int row = 0; row < kTileRows; ++row) {
    const PhiloxBlock block = draw(seed, first_row + static_cast<std::uint64_t>(row), epoch, Purpose::kKeep);
    for (int lane = 0; lane < kRowSlots; ++lane)
      lanes[row * kRowSlots + lane] = static_cast<std::uint16_t>(lane_of(block, lane));
  }
}

}  // namespace

void draw_tile(std::uint64_t seed, std::uint32_t epoch, std::uint64_t first_row, std::uint16_t* lanes) {
#if IB_VERSIONS
  // AVX-512 has a product of 64-bit lanes, which the compiler uses by itself.
  static const bool by_hand = __builtin_cpu_supports("avx2") && !__builtin_cpu_supports("x86-64-v4");
  if (by_hand) return draw_tile_avx2(key_of(seed), epoch, first_row, lanes);
#endif
  draw_tile_compiled(seed, epoch, first_row, lanes);
}

}  // namespace infobatch::cpu
