// Philox4x32-10 (Salmon et al., SC 2011): the one source of randomness. A draw is a pure function of
// (seed, epoch, what it is for, which item), so it is the same on every device and in every launch.
#pragma once

#include "portable.h"

namespace infobatch {

struct PhiloxKey {
  std::uint32_t w[2];
};

struct PhiloxBlock {
  std::uint32_t w[4];
};

IB_HD constexpr std::uint32_t high_product(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(a) * b) >> 32);
}

template <class Word>
struct Product {
  Word high, low;
};

IB_HD constexpr Product<std::uint32_t> product(std::uint32_t word, std::uint32_t factor) {
  return {high_product(word, factor), word * factor};
}

// The ten rounds, in place. A Word is 32 bits, or those of several blocks side by side, for which a backend has the product and
// the exclusive-or.
template <class Word>
IB_HD constexpr void philox_rounds(Word (&counter)[4], PhiloxKey key) {
  std::uint32_t k0 = key.w[0], k1 = key.w[1];
#if defined(__GNUC__) && !defined(__CUDACC__)  // nvcc unrolls without being asked
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    const Product<Word> first = product(counter[0], 0xD2511F53u), second = product(counter[2], 0xCD9E8D57u);
    counter[0] = second.high ^ counter[1] ^ k0;
    counter[1] = second.low;
    counter[2] = first.high ^ counter[3] ^ k1;
    counter[3] = first.low;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

IB_HD constexpr PhiloxBlock philox4x32(PhiloxBlock counter, PhiloxKey key) {
  philox_rounds(counter.w, key);
  return counter;
}

// The last counter word. Two uses of the generator never share a counter.
enum class Purpose : std::uint32_t { kKeep = 1, kDeal = 2, kShuffle = 3 };

IB_HD constexpr PhiloxKey key_of(std::uint64_t seed) {
  return {{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}};
}

IB_HD constexpr PhiloxBlock draw(std::uint64_t seed, std::uint64_t item, std::uint32_t epoch, Purpose purpose) {
  return philox4x32(
      {{static_cast<std::uint32_t>(item), static_cast<std::uint32_t>(item >> 32), epoch, static_cast<std::uint32_t>(purpose)}},
      key_of(seed));
}

// Known answers of Random123 1.14 (kat_vectors), and the number that C++26 requires of std::philox4x32:
// its 10000th output is word 3 of block 2499 under the default seed.
namespace known_answers {
constexpr bool equal(PhiloxBlock a, PhiloxBlock b) {
  return a.w[0] == b.w[0] && a.w[1] == b.w[1] && a.w[2] == b.w[2] && a.w[3] == b.w[3];
}
static_assert(equal(philox4x32({{0, 0, 0, 0}}, {{0, 0}}), {{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}}));
static_assert(equal(philox4x32({{~0u, ~0u, ~0u, ~0u}}, {{~0u, ~0u}}), {{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}}));
static_assert(equal(philox4x32({{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}}, {{0xa4093822u, 0x299f31d0u}}),
                    {{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}}));
static_assert(philox4x32({{2499, 0, 0, 0}}, {{20111115, 0}}).w[3] == 1955073260u);
}  // namespace known_answers

}  // namespace infobatch
