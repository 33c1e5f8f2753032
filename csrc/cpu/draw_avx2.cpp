// Eight Philox blocks side by side on AVX2, whose one product of 32-bit numbers leaves 64 bits in each of four lanes. The
// compiler does not find it: it widens, multiplies and packs, and takes twice as long.
//
// All of this file is for processors with AVX2. It calls no inline function that other files call too, as the linker keeps one
// copy of such a function for all processors; its philox_rounds is one of its own, for its own type.
#include "versions.h"

#if IB_VERSIONS
#pragma GCC target("avx2")  // ahead of the headers, as their templates have to be for AVX2 too

#include <immintrin.h>

#include <cstring>

#include "draw.h"

namespace infobatch::cpu {
namespace {

using Lanes = std::uint64_t __attribute__((vector_size(32)));
constexpr int kLanes = 4;

// A word of eight blocks: the low halves of the lanes. What stands above them never reaches a low half.
struct Words {
  Lanes a, b;
};

Words operator^(Words x, Words y) { return {x.a ^ y.a, x.b ^ y.b}; }

Words operator^(Words x, std::uint32_t y) { return {x.a ^ y, x.b ^ y}; }

Lanes multiply(Lanes low_halves, std::uint32_t factor) {
  return reinterpret_cast<Lanes>(_mm256_mul_epu32(reinterpret_cast<__m256i>(low_halves), _mm256_set1_epi64x(factor)));
}

Product<Words> product(Words x, std::uint32_t factor) {
  const Words low = {multiply(x.a, factor), multiply(x.b, factor)};
  return {{low.a >> 32, low.b >> 32}, low};
}

// Lanes 0 to 3 are rows 0, 2, 1 and 3, as unpacking puts every second lane aside.
constexpr Lanes kRowOfLane = {0, 2, 1, 3};

void store(Lanes w0, Lanes w1, Lanes w2, Lanes w3, std::uint16_t* lanes) {
  const Lanes first = (w0 & 0xFFFFFFFFu) | (w1 << 32), second = (w2 & 0xFFFFFFFFu) | (w3 << 32);
  const __m256i a = reinterpret_cast<__m256i>(first), b = reinterpret_cast<__m256i>(second);
  const __m256i rows[2] = {_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)};
  std::memcpy(lanes, rows, sizeof rows);
}

}  // namespace

void draw_tile_avx2(PhiloxKey key, std::uint32_t epoch, std::uint64_t first_row, std::uint16_t* lanes) {
  constexpr Lanes zero = {};
  const Lanes epochs = zero + epoch, purpose = zero + static_cast<std::uint32_t>(Purpose::kKeep);
  for (int row = 0; row < kTileRows; row += 2 * kLanes, lanes += 2 * kLanes * kRowSlots) {
    const Lanes rows = kRowOfLane + (first_row + static_cast<std::uint64_t>(row)), more = rows + kLanes;
    // As in `draw`.
    Words counter[4] = {{rows, more}, {rows >> 32, more >> 32}, {epochs, epochs}, {purpose, purpose}};
    philox_rounds(counter, key);
    store(counter[0].a, counter[1].a, counter[2].a, counter[3].a, lanes);
    store(counter[0].b, counter[1].b, counter[2].b, counter[3].b, lanes + kLanes * kRowSlots);
  }
}

}  // namespace infobatch::cpu

#endif
