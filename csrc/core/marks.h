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

// Bytes hold two marks each.
IB_HD std::uint32_t mark_at(const std::uint8_t* marks, std::uint64_t slot) {
  return (marks[slot >> 1] >> (kMarkBits * (slot & 1))) & 0xFu;
}

}  // namespace infobatch
