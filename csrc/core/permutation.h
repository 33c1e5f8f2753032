// A keyed bijection of [0, n): a Feistel network over the rectangle rows x columns, columns = 2^k near sqrt(n),
// rows = ceil(n / 2^k). The rectangle exceeds n by less than one row, so an item leaves [0, n) with probability
// below 1/sqrt(n); it is then mapped again until it is back inside (cycle walking, Black & Rogaway 2002).
// Both directions cost the same, nothing is stored, and all arithmetic on the halves is 32-bit.
#pragma once

#include "philox.h"

namespace infobatch {

inline constexpr int kPassRounds = 8;
// Eight rounds mix any rectangle of some size. Where a half has only a few values they converge slowly (at n = 7 the pair
// frequencies gain a factor of four in two rounds), so small sets go through three passes.
inline constexpr int kMaxPasses = 3;
inline constexpr std::uint64_t kSmallSize = 1024;

struct Permutation {
  std::uint64_t size;  // n, below 2^62
  std::uint32_t rows;  // ceil(n / 2^column_bits)
  std::uint32_t column_bits;
  std::uint32_t passes;  // 0 leaves every item where it is
  std::uint32_t keys[kMaxPasses * kPassRounds];
};

inline Permutation identity_permutation(std::uint64_t size) {
  Permutation p{};
  p.size = size;
  return p;
}

// `stream` tells apart permutations of one purpose and epoch (the rank whose order it is).
inline Permutation make_permutation(std::uint64_t size, std::uint64_t seed, Purpose purpose, std::uint32_t epoch,
                                    std::uint32_t stream) {
  Permutation p{};
  p.size = size;
  const std::uint64_t last = size > 0 ? size - 1 : 0;
  std::uint32_t bits = 0;
  while (bits < 64 && (last >> bits) != 0) ++bits;
  p.column_bits = bits / 2;
  p.rows = static_cast<std::uint32_t>((last >> p.column_bits) + 1);
  p.passes = size < kSmallSize ? kMaxPasses : 1;
  for (std::uint32_t block = 0; block < p.passes * kPassRounds / 4; ++block) {
    const std::uint64_t item = (static_cast<std::uint64_t>(stream) << 32) | block;
    const PhiloxBlock words = draw(seed, item, epoch, purpose);
    for (int i = 0; i < 4; ++i) p.keys[4 * block + i] = words.w[i];
  }
  return p;
}

// Round function: a 32-bit hash of the other half, scaled to [0, modulus) by its high product. For columns, of which there are
// 2^column_bits, the high product is a shift (in two steps, as a shift by 32 is undefined).
IB_HD std::uint32_t hash_half(std::uint32_t half, std::uint32_t key) {
  std::uint32_t h = (half ^ key) * 0x9E3779B1u;
  h ^= h >> 15;
  return h * 0x85EBCA77u;
}

// high_product for b < 2^16, by two products of 32 bits: the first and the upper half of the second add up to at most
// (2^16 - 1)^2 + 2^16 - 2.
IB_HD std::uint32_t high_product_by_halves(std::uint32_t a, std::uint32_t b) {
  return ((a >> 16) * b + ((a & 0xFFFFu) * b >> 16)) >> 16;
}

IB_HD std::uint32_t row_offset(const Permutation& p, std::uint32_t column, std::uint32_t key) {
#if !defined(__CUDA_ARCH__)  // vector units of CPUs have no high product of 32 bits
  if (p.rows < 1u << 16) return high_product_by_halves(hash_half(column, key), p.rows);
#endif
  return high_product(hash_half(column, key), p.rows);
}

IB_HD std::uint32_t column_offset(const Permutation& p, std::uint32_t row, std::uint32_t key) {
  return (hash_half(row, key) >> 1) >> (31 - p.column_bits);
}

// (a + b) mod m and (a - b) mod m for a, b < m <= 2^31. Of the two candidates the wrong one has wrapped, so it is larger.
IB_HD std::uint32_t add_modulo(std::uint32_t a, std::uint32_t b, std::uint32_t m) {
  const std::uint32_t sum = a + b, reduced = sum - m;
  return reduced < sum ? reduced : sum;
}

IB_HD std::uint32_t subtract_modulo(std::uint32_t a, std::uint32_t b, std::uint32_t m) {
  const std::uint32_t difference = a - b, raised = difference + m;
  return raised < difference ? raised : difference;
}

// An item's place in the rectangle.
struct Cell {
  std::uint32_t row, column;
};

IB_HD std::uint32_t last_column(const Permutation& p) { return (1u << p.column_bits) - 1; }

IB_HD Cell cell_of(const Permutation& p, std::uint64_t item) {
  return {static_cast<std::uint32_t>(item >> p.column_bits), static_cast<std::uint32_t>(item) & last_column(p)};
}

IB_HD std::uint64_t item_of(const Permutation& p, Cell cell) {
  return (static_cast<std::uint64_t>(cell.row) << p.column_bits) | cell.column;
}

// Rounds change one half each: rows in the even ones, columns in the odd ones.
IB_HD std::uint32_t move_row(const Permutation& p, std::uint32_t key, Cell cell) {
  return add_modulo(cell.row, row_offset(p, cell.column, key), p.rows);
}

IB_HD std::uint32_t move_column(const Permutation& p, std::uint32_t key, Cell cell) {
  return (cell.column + column_offset(p, cell.row, key)) & last_column(p);
}

// Their inverses.
IB_HD std::uint32_t move_row_back(const Permutation& p, std::uint32_t key, Cell cell) {
  return subtract_modulo(cell.row, row_offset(p, cell.column, key), p.rows);
}

IB_HD std::uint32_t move_column_back(const Permutation& p, std::uint32_t key, Cell cell) {
  return (cell.column - column_offset(p, cell.row, key)) & last_column(p);
}

// One pass of eight rounds over the rectangle. The result may be >= size.
IB_HD std::uint64_t permute_pass(const Permutation& p, std::uint32_t pass, std::uint64_t item) {
  const std::uint32_t* keys = p.keys + pass * kPassRounds;
  Cell cell = cell_of(p, item);
  for (int i = 0; i < kPassRounds; i += 2) {
    cell.row = move_row(p, keys[i], cell);
    cell.column = move_column(p, keys[i + 1], cell);
  }
  return item_of(p, cell);
}

// The inverse of permute_pass.
IB_HD std::uint64_t unpermute_pass(const Permutation& p, std::uint32_t pass, std::uint64_t item) {
  const std::uint32_t* keys = p.keys + pass * kPassRounds;
  Cell cell = cell_of(p, item);
  for (int i = kPassRounds - 2; i >= 0; i -= 2) {
    cell.column = move_column_back(p, keys[i + 1], cell);
    cell.row = move_row_back(p, keys[i], cell);
  }
  return item_of(p, cell);
}

// All passes; the result may be >= size.
IB_HD std::uint64_t permute_once(const Permutation& p, std::uint64_t item) {
  for (std::uint32_t pass = 0; pass < p.passes; ++pass) item = permute_pass(p, pass, item);
  return item;
}

IB_HD std::uint64_t unpermute_once(const Permutation& p, std::uint64_t item) {
  for (std::uint32_t pass = p.passes; pass-- > 0;) item = unpermute_pass(p, pass, item);
  return item;
}

// item and result in [0, size).
IB_HD std::uint64_t permute(const Permutation& p, std::uint64_t item) {
  do item = permute_once(p, item);
  while (item >= p.size);
  return item;
}

IB_HD std::uint64_t unpermute(const Permutation& p, std::uint64_t item) {
  do item = unpermute_once(p, item);
  while (item >= p.size);
  return item;
}

}  // namespace infobatch
