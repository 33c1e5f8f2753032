#include "inputs.h"

#include <cmath>

using namespace infobatch;

namespace {

float exponential(Random& random) { return static_cast<float>(-std::log1p(-random.uniform())); }

float any_finite(Random& random) {
  for (;;) {
    const std::uint32_t bits = random.bits();
    if (is_finite_bits(bits)) return float_of(bits);
  }
}

float huge_or_tiny(Random& random) {
  if (!random.one_in(3)) return 1e-30f * exponential(random);
  return random.one_in(2) ? 3e38f : -3e38f;
}

float zero_of_a_sign(Random& random) {
  if (random.one_in(2)) return -0.0f;
  return random.one_in(5) ? exponential(random) : 0.0f;
}

}  // namespace

const char* name_of(Kind kind) {
  static constexpr const char* names[] = {"exponential", "equal",       "unseen",      "zeros of both signs",
                                          "subnormal",   "huge, tiny",  "negative",    "with unseen",
                                          "all bits",    "scale moves", "near largest"};
  return names[static_cast<int>(kind)];
}

float make_score(Kind kind, std::int64_t slot, Random& random) {
  switch (kind) {
    case Kind::kEqual:
      return 0.6931472f;
    case Kind::kUnseen:
      return float_of(kUnseenBits);
    case Kind::kZeros:
      return zero_of_a_sign(random);
    case Kind::kSubnormal:
      return float_of((random.bits() & 0xFFFFFFu) | (random.one_in(3) ? kMinusZeroBits : 0u));
    case Kind::kHugeAndTiny:
      return huge_or_tiny(random);
    case Kind::kNegative:
      return -100 * exponential(random);
    case Kind::kWithUnseen:
      return random.one_in(2) ? float_of(kUnseenBits) : exponential(random) - 1;
    case Kind::kAllBits:
      return any_finite(random);
    case Kind::kShiftingScale:
      return std::ldexp(exponential(random), static_cast<int>(slot / 700 % 250) - 120);
    case Kind::kNearLargest:
      return random.one_in(7) ? float_of(kUnseenBits) : 3.4e38f;
    default:
      return exponential(random);
  }
}

std::vector<float> make_scores(Kind kind, std::int64_t num_slots, Random& random) {
  std::vector<float> scores(static_cast<std::size_t>(num_slots));
  for (std::int64_t slot = 0; slot < num_slots; ++slot) scores[static_cast<std::size_t>(slot)] = make_score(kind, slot, random);
  return scores;
}

Shard make_shard(Place place, std::int64_t num_slots, std::uint64_t seed) {
  const auto dealt = [&](std::int64_t first_slot, std::int64_t size) {
    return Shard{make_permutation(static_cast<std::uint64_t>(size), seed, Purpose::kDeal, 0, 0), first_slot, num_slots};
  };
  const std::int64_t middle = 8 * (num_slots / 5 + 3), largest = std::int64_t{1} << 40;
  switch (place) {
    case Place::kDealtShard:
      return dealt(middle, middle + num_slots + 13);
    case Place::kShardWithoutDeal:
      return {identity_permutation(static_cast<std::uint64_t>(64 + num_slots)), 64, num_slots};
    case Place::kFarOut:
      return dealt(largest / 2 + 1024, largest);
    default:
      return dealt(0, num_slots);
  }
}

std::vector<std::uint8_t> protected_bits(std::int64_t num_slots, Random& random) {
  std::vector<std::uint8_t> bits(static_cast<std::size_t>((num_slots + 7) / 8));
  for (std::uint8_t& byte : bits) byte = static_cast<std::uint8_t>(random.next() & random.next() & random.next());
  if (num_slots % 8 != 0) bits.back() &= static_cast<std::uint8_t>((1 << num_slots % 8) - 1);
  return bits;
}
