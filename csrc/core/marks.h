// Marks: the plan of an epoch and what has come of it, four bits a slot. Bit 0: kept. Bit 1: visited. Bits 2-3: tier code.
//
// They stand together because `record` needs all of them at a random slot of a table that no cache holds: one line is fetched
// instead of three. A row of eight slots, which share a Philox block, is one little-endian 32-bit word, the first slot lowest.
#pragma once

#include "portable.h"

namespace infobatch {

inline constexpr std::uint32_t kKeptMark = 1u, kVisitedMark = 2u;
inline constexpr int kTierShift = 2;
inline constexpr int kMarkBits = 4;
inline constexpr std::uint64_t kKeptMask = 0x1111111111111111ull;  // the kept bits of the 16 marks in a 64-bit word

IB_HD std::uint32_t make_mark(bool kept, std::uint32_t tier) { return (tier << kTierShift) | (kept ? kKeptMark : 0u); }

IB_HD std::uint32_t tier_of_mark(std::uint32_t mark) { return mark >> kTierShift; }

// Bit i of a byte goes to the kept bit of a row's slot i.
IB_HD std::uint32_t kept_marks(std::uint8_t bits) {
  std::uint32_t ones = bits;
  ones = (ones | ones << 12) & 0x000F000Fu;
  ones = (ones | ones << 6) & 0x03030303u;
  return (ones | ones << 3) & 0x11111111u;
}

// The marks of a row, where those slots whose bit of `protect` is set are in tier 0 and kept, whatever was decided for them.
IB_HD std::uint32_t protect_row(std::uint32_t marks, std::uint8_t protect) {
  const std::uint32_t ones = kept_marks(protect);
  return (marks & ~(ones * 0xFu)) | ones * make_mark(true, 0);
}

// Bytes hold two marks each.
IB_HD std::uint32_t mark_at(const std::uint8_t* marks, std::uint64_t slot) {
  return (marks[slot >> 1] >> (kMarkBits * (slot & 1))) & 0xFu;
}

}  // namespace infobatch
