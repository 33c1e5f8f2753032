// Statistics of the scores: the exact sum behind the mean threshold, and radix selection behind the quantile tiers.
#include <cub/block/block_scan.cuh>

#include "parallel.cuh"

namespace infobatch::cuda {
namespace {

// ---- the exact sum ----

constexpr int kSumBlock = 256;
constexpr int kSumBlocksPerMultiprocessor = 6;
constexpr int kQuads = 4;  // loads of 16 bytes that a lane has in flight
constexpr int kLaneScores = 4 * kQuads;
constexpr std::int64_t kWarpTile = kWarp * kLaneScores;

// A lane sums the scores of a window of 31 exponents in 64 bits: the mantissas, shifted to the window's unit, are below 2^54,
// so 2^9 of them are below 2^63. The window may begin at any exponent, and each warp moves its own to where its scores are:
// those of a data set hardly ever spread wider than that, so nearly every score is added by one multiplication.
constexpr std::uint32_t kWindow = 31;
constexpr std::uint32_t kHighestWindow = 254 - kWindow;
constexpr std::uint32_t kHeadroom = 3;  // exponents left free above the scores that a window is moved to
constexpr int kTilesPerSplit = 512 / kLaneScores;

struct Limbs {
  std::int64_t of[kLimbs];
  std::int64_t seen;
};

// Adds the warp's sums, in units of 2^(shift - 149), to the limbs. The parts of each lane are below 2^32.
__device__ void add_to_limbs(Limbs& limbs, std::int64_t sum, std::uint32_t shift) {
  const std::uint32_t offset = shift % 32, limb = shift / 32;
  const std::int64_t low = (sum & 0xFFFFFFFFll) << offset;
  const std::int64_t high = (sum >> 32) * (1ll << offset) + (low >> 32);
  const std::int64_t parts[3] = {warp_sum(low & 0xFFFFFFFFll), warp_sum(high & 0xFFFFFFFFll), warp_sum(high >> 32)};
  if (threadIdx.x % kWarp != 0) return;
  for (int i = 0; i < 3; ++i) atomic_add(&limbs.of[limb + i], parts[i]);
}

struct Window {
  std::uint32_t low;  // shift of its unit
  std::int64_t sum;
};

// Adds those scores that stand in [low, low + 31) and [low, end), but not in `done`. Returns 1 + the highest shift of those
// below, or 0: nothing is left. Zeros are in every window.
__device__ std::uint32_t add_scores(const float (&scores)[kLaneScores], std::uint32_t end, Window done, Window& window) {
  std::uint32_t left = 0;
#pragma unroll
  for (int i = 0; i < kLaneScores; ++i) {
    const std::uint32_t bits = bits_of(scores[i]), shift = mantissa_shift(exponent_of(bits));
    if (!is_finite_bits(bits) || shift - done.low < kWindow || shift >= end) continue;
    if (shift >= window.low) window.sum += static_cast<std::int64_t>(signed_mantissa(bits)) * (1 << (shift - window.low));
    else if ((bits << 1) != 0) left = max(left, shift + 1);
  }
  return left;
}
