// A warp's share of the exact sum.
//
// A lane sums the scores of a window of 31 exponents in 64 bits: the mantissas, shifted to the window's unit, are below 2^54,
// so 2^9 of them are below 2^63. The window may begin at any exponent, and each warp moves its own to where its scores are:
// those of a data set hardly ever spread wider than that, so nearly every score is added by one multiplication.
#pragma once

#include "parallel.cuh"

namespace infobatch::cuda {

inline constexpr int kQuads = 4;  // loads of 16 bytes that a lane has in flight
inline constexpr int kLaneScores = 4 * kQuads;
inline constexpr std::int64_t kWarpTile = kWarp * kLaneScores;

inline constexpr std::int64_t kQuadStride = 4 * kWarp;

inline constexpr std::uint32_t kWindow = 31;
inline constexpr std::uint32_t kHighestWindow = 254 - kWindow;
inline constexpr std::uint32_t kHeadroom = 3;  // exponents left free above the scores that a window is moved to
inline constexpr int kTilesPerSplit = 512 / kLaneScores;

struct Limbs {
  std::int64_t words[kSumWords];
};

// A window with some room above the highest shift, which is top - 1.
__device__ inline std::uint32_t window_below(std::uint32_t top) {
  const std::uint32_t end = top + kHeadroom;
  return end < kWindow ? 0 : min(end - kWindow, kHighestWindow);
}

__device__ inline std::uint32_t warp_max(std::uint32_t value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value = max(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// Adds the warp's sums, in units of 2^(shift - 149), to the limbs, the parts of each lane being below 2^32.
__device__ inline void add_to_limbs(Limbs& limbs, std::int64_t sum, std::uint32_t shift) {
  const std::uint32_t offset = shift % 32, limb = shift / 32;
  const std::int64_t low = (sum & 0xFFFFFFFFll) << offset;
  const std::int64_t high = (sum >> 32) * (1ll << offset) + (low >> 32);
  const std::int64_t parts[3] = {warp_sum(low & 0xFFFFFFFFll), warp_sum(high & 0xFFFFFFFFll), warp_sum(high >> 32)};
  if (threadIdx.x % kWarp != 0) return;
  for (int i = 0; i < 3; ++i) atomic_add(&limbs.words[limb + i], parts[i]);
}

// How far a score's exponent is above the window's first, in steps of 2^23. Below kWindowSteps for normal numbers with a shift
// in [low, low + 31), and for them alone.
__device__ inline std::uint32_t steps_above(std::uint32_t bits, std::uint32_t low) {
  return (bits & 0x7FFFFFFFu) - ((low + 1) << 23);
}
inline constexpr std::uint32_t kWindowSteps = kWindow << 23;

// Adds the scores in the window, and says whether all were. No branches: they would cost more than they save.
__device__ inline bool add_inside(const float (&scores)[kLaneScores], std::uint32_t low, std::int64_t& sum) {
  bool all = true;
#pragma unroll
  for (int i = 0; i < kLaneScores; ++i) {
    const std::uint32_t bits = bits_of(scores[i]), steps = steps_above(bits, low);
    const bool inside = steps < kWindowSteps;
    const std::int32_t mantissa = inside ? signed_mantissa(bits) : 0;
    sum += static_cast<std::int64_t>(mantissa) * (1 << (steps >> 23) % 32);
    all = all && inside;
  }
  return all;
}

// Counts the seen scores. Returns 1 + the highest shift of those that are neither in the window nor zero, or 0.
__device__ inline std::uint32_t survey(const float (&scores)[kLaneScores], std::uint32_t low, std::uint32_t& seen) {
  std::uint32_t top = 0;
#pragma unroll
  for (int i = 0; i < kLaneScores; ++i) {
    const std::uint32_t bits = bits_of(scores[i]);
    const bool finite = is_finite_bits(bits), outside = finite && steps_above(bits, low) >= kWindowSteps && (bits << 1) != 0;
    seen += finite ? 1 : 0;
    top = max(top, outside ? mantissa_shift(exponent_of(bits)) + 1 : 0);
  }
  return top;
}

// Adds those of a tile's scores that are outside the window [low, low + 31) to the limbs, from the highest ones down, a window
// at a time. `top` is what survey returned. This is rare, so it reads the scores again, four by four: the usual path needs the
// registers.
__device__ inline void add_outside(const float* table, std::int64_t first, std::int64_t num_slots, std::uint32_t low,
                                   std::uint32_t top, Limbs& limbs) {
  while ((top = warp_max(top)) != 0) {
    const std::uint32_t from = top > kWindow ? top - kWindow : 0;
    std::uint32_t below = 0;
    std::int64_t sum = 0;
#pragma unroll 1
    for (int quad = 0; quad < kQuads; ++quad) {
      float scores[4];
      load_scores<1>(table, first + quad * kQuadStride, 0, num_slots, scores);
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t bits = bits_of(scores[i]), shift = mantissa_shift(exponent_of(bits));
        if (!is_finite_bits(bits) || steps_above(bits, low) < kWindowSteps || shift >= top) continue;
        if (shift >= from) sum += static_cast<std::int64_t>(signed_mantissa(bits)) * (1 << (shift - from));
        else if ((bits << 1) != 0) below = max(below, shift + 1);
      }
    }
    add_to_limbs(limbs, sum, from);
    top = below;
  }
}

}  // namespace infobatch::cuda
