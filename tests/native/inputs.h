// The tables that the backends are compared on.
#pragma once

#include <string>
#include <vector>

#include "../../csrc/backends.h"

// SplitMix64 (Steele et al., OOPSLA 2014): nothing of the code that is tested.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    state_ += 0x9E3779B97F4A7C15ull;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t limit) { return next() % limit; }
  bool one_in(std::uint64_t several) { return below(several) == 0; }
  std::uint32_t bits() { return static_cast<std::uint32_t>(next()); }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

// What the scores are like.
enum class Kind {
  kExponential,
  kEqual,
  kUnseen,
  kZeros,
  kSubnormal,
  kHugeAndTiny,
  kNegative,
  kWithUnseen,
  kAllBits,
  kShiftingScale,
  kNearLargest,
  kNumKinds
};
inline constexpr int kNumKinds = static_cast<int>(Kind::kNumKinds);
const char* name_of(Kind);
float make_score(Kind, std::int64_t slot, Random&);
std::vector<float> make_scores(Kind, std::int64_t num_slots, Random&);

// A bit in eight, and none behind the last slot.
std::vector<std::uint8_t> protected_bits(std::int64_t num_slots, Random&);

// Where the table stands in its data set.
enum class Place { kWholeSet, kDealtShard, kShardWithoutDeal, kFarOut, kNumPlaces };
inline constexpr int kNumPlaces = static_cast<int>(Place::kNumPlaces);
infobatch::Shard make_shard(Place, std::int64_t num_slots, std::uint64_t seed);

struct Case {
  infobatch::Shard shard;
  Kind kind;
  std::uint64_t seed;
  int threads;  // of the CPU backend
  int every;    // one in so many plans of a table is made
  bool large;   // for fewer variants of a plan
  std::int64_t num_slots() const { return shard.num_slots; }
};

// Up to three, in descending order and padded with -infinity.
using Thresholds = std::vector<float>;
