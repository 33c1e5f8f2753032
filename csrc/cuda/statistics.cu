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
  std::int64_t words[kSumWords];
};

// A window with some room above the highest shift, which is top - 1.
__device__ std::uint32_t window_below(std::uint32_t top) {
  const std::uint32_t end = top + kHeadroom;
  return end < kWindow ? 0 : min(end - kWindow, kHighestWindow);
}

__device__ std::uint32_t warp_max(std::uint32_t value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value = max(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// Adds the warp's sums, in units of 2^(shift - 149), to the limbs, the parts of each lane being below 2^32.
__device__ void add_to_limbs(Limbs& limbs, std::int64_t sum, std::uint32_t shift) {
  const std::uint32_t offset = shift % 32, limb = shift / 32;
  const std::int64_t low = (sum & 0xFFFFFFFFll) << offset;
  const std::int64_t high = (sum >> 32) * (1ll << offset) + (low >> 32);
  const std::int64_t parts[3] = {warp_sum(low & 0xFFFFFFFFll), warp_sum(high & 0xFFFFFFFFll), warp_sum(high >> 32)};
  if (threadIdx.x % kWarp != 0) return;
  for (int i = 0; i < 3; ++i) atomic_add(&limbs.words[limb + i], parts[i]);
}

// Adds the scores of the window [low, low + 31). Returns 1 + the highest shift of the others, 0 where there are none; zeros
// are at home in every window.
__device__ std::uint32_t add_inside(const float (&scores)[kLaneScores], std::uint32_t low, std::int64_t& sum,
                                    std::uint32_t& seen) {
  std::uint32_t outside = 0;
#pragma unroll
  for (int i = 0; i < kLaneScores; ++i) {
    const std::uint32_t bits = bits_of(scores[i]), shift = mantissa_shift(exponent_of(bits));
    if (!is_finite_bits(bits)) continue;
    seen += 1;
    if (shift - low < kWindow) sum += static_cast<std::int64_t>(signed_mantissa(bits)) * (1 << (shift - low));
    else if ((bits << 1) != 0) outside = max(outside, shift + 1);
  }
  return outside;
}

// Adds the scores outside the window [low, low + 31) to the limbs, from the highest ones down, a window at a time. `top` is
// what add_inside returned.
__device__ void add_outside(const float (&scores)[kLaneScores], std::uint32_t low, std::uint32_t top, Limbs& limbs) {
  while ((top = warp_max(top)) != 0) {
    const std::uint32_t from = top > kWindow ? top - kWindow : 0;
    std::uint32_t below = 0;
    std::int64_t sum = 0;
#pragma unroll
    for (int i = 0; i < kLaneScores; ++i) {
      const std::uint32_t bits = bits_of(scores[i]), shift = mantissa_shift(exponent_of(bits));
      if (!is_finite_bits(bits) || shift - low < kWindow || shift >= top) continue;
      if (shift >= from) sum += static_cast<std::int64_t>(signed_mantissa(bits)) * (1 << (shift - from));
      else if ((bits << 1) != 0) below = max(below, shift + 1);
    }
    add_to_limbs(limbs, sum, from);
    top = below;
  }
}

__global__ void __launch_bounds__(kSumBlock) sum_scores_kernel(SumScores args) {
  __shared__ Limbs limbs;
  for (int i = threadIdx.x; i < kSumWords; i += kSumBlock) limbs.words[i] = 0;
  __syncthreads();

  const std::int64_t lane = threadIdx.x % kWarp;
  std::uint32_t low = 0, seen = 0;
  std::int64_t sum = 0;
  int tiles = 0;
  for (std::int64_t tile = thread_in_grid() / kWarp; tile * kWarpTile < args.num_slots; tile += threads_in_grid() / kWarp) {
    float scores[kLaneScores];
    load_scores<kQuads>(args.scores, tile * kWarpTile + 4 * lane, 4 * kWarp, args.num_slots, scores);
    const std::uint32_t top = add_inside(scores, low, sum, seen);
    const unsigned lanes_outside = __ballot_sync(kAllLanes, top != 0);
    if (lanes_outside != 0) add_outside(scores, low, top, limbs);
    const bool moves = __popc(lanes_outside) > kWarp / 2;
    if (++tiles == kTilesPerSplit || moves) {
      add_to_limbs(limbs, sum, low);
      sum = 0, tiles = 0;
    }
    if (moves) low = window_below(warp_max(top));
  }
  add_to_limbs(limbs, sum, low);
  const std::int64_t warp_seen = warp_sum(seen);
  if (lane == 0) atomic_add(&limbs.words[kLimbs], warp_seen);
  __syncthreads();

  if (threadIdx.x != 0) return;
  for (int i = 0; i < kLimbs - 1; ++i) {  // so that what a block adds to a limb is below 2^32, however many scores it had
    limbs.words[i + 1] += limbs.words[i] >> 32;
    limbs.words[i] &= 0xFFFFFFFFll;
  }
  for (int i = 0; i < kSumWords; ++i) atomic_add(args.sum + i, limbs.words[i]);
}

__global__ void mean_threshold_kernel(MeanThreshold args) {
  args.thresholds[0] = infobatch::mean_threshold(args.sum);
  args.thresholds[1] = args.thresholds[2] = float_of(kMinusInfinityBits);
}

// ---- radix selection ----

constexpr int kDigitBlock = 512;
constexpr int kDigitBlocksPerMultiprocessor = 3;
constexpr std::int64_t kDigitTile = kDigitBlock * 4;

// Losses of a data set crowd in a few bins of the first digit, so each bin has copies side by side (in different banks) that
// the lanes take turns in: four for one target, two for two or three, which is 48 KB at most.
constexpr int copies_of_bins(int targets) { return targets == 1 ? 4 : 2; }

// Counts the digits of the warp's lanes that are in. Where all are equal, as in a table of equal scores, one lane adds for all.
__device__ void count_digit(std::uint32_t* bins, int copies, std::uint32_t digit, bool in) {
  const unsigned lanes_in = __ballot_sync(kAllLanes, in);
  if (lanes_in == 0) return;
  const int lane = threadIdx.x % kWarp, first = __ffs(lanes_in) - 1;
  const std::uint32_t first_digit = __shfl_sync(kAllLanes, digit, first);
  const bool equal = __all_sync(kAllLanes, !in || digit == first_digit);
  if (equal ? lane == first : in) atomicAdd(bins + digit * copies + lane % copies, equal ? __popc(lanes_in) : 1);
}

__global__ void __launch_bounds__(kDigitBlock) count_digits_kernel(CountDigits args, int targets) {
  extern __shared__ std::uint32_t bins[];  // [targets, 2048, copies]; a block counts fewer than 2^32 scores
  const int copies = copies_of_bins(targets), bins_of_target = kDigitBins * copies;
  for (int i = threadIdx.x; i < targets * bins_of_target; i += kDigitBlock) bins[i] = 0;
  __syncthreads();

  const std::uint32_t mask = prefix_mask(args.pass);
  std::uint32_t prefix[kMaxThresholds] = {};
  for (int t = 0; t < targets && args.pass > 0; ++t) prefix[t] = static_cast<std::uint32_t>(args.state->prefix[t]);
  for (std::int64_t tile = blockIdx.x; tile * kDigitTile < args.num_slots; tile += gridDim.x) {
    float scores[4];
    load_scores<1>(args.scores, tile * kDigitTile + 4 * threadIdx.x, 0, args.num_slots, scores);
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t bits = bits_of(scores[i]), key = ordered_key(bits);
      for (int t = 0; t < kMaxThresholds; ++t) {
        if (t == targets) break;
        const bool in = is_finite_bits(bits) && (key & mask) == prefix[t];
        count_digit(bins + t * bins_of_target, copies, digit_of(key, args.pass), in);
      }
    }
  }
  __syncthreads();

  for (int bin = threadIdx.x; bin < targets * kDigitBins; bin += kDigitBlock) {
    std::int64_t count = 0;
    for (int copy = 0; copy < copies; ++copy) count += bins[bin * copies + copy];
    if (count > 0) atomic_add(args.counts + bin, count);
  }
}

constexpr int kNarrowBlock = 256;
constexpr int kLaneBins = kDigitBins / kNarrowBlock;

// start_quantiles, narrow_one and write_thresholds of the core, with a scan in place of the walk over the bins.
__global__ void __launch_bounds__(kNarrowBlock) narrow_quantiles_kernel(NarrowQuantiles args) {
  using Scan = cub::BlockScan<std::int64_t, kNarrowBlock>;
  __shared__ typename Scan::TempStorage scan;
  __shared__ QuantileState state;
  if (threadIdx.x == 0) state = args.pass == 0 ? QuantileState{} : *args.state;

  for (int t = 0; t < args.num_targets; ++t) {
    const std::int64_t* counts = args.counts + (args.pass == 0 ? 0 : t * kDigitBins);
    std::int64_t count[kLaneBins], before[kLaneBins], total;
    for (int i = 0; i < kLaneBins; ++i) count[i] = counts[threadIdx.x * kLaneBins + i];
    __syncthreads();  // the state is there, and the scan's storage free
    Scan(scan).ExclusiveSum(count, before, total);
    if (args.pass == 0 && threadIdx.x == 0) {
      state.seen = total;
      state.rank[t] = quantile_rank(static_cast<std::uint64_t>(total), args.fractions[t]);
    }
    __syncthreads();
    const std::int64_t rank = state.rank[t];
    __syncthreads();
    for (int i = 0; i < kLaneBins; ++i) {
      const int digit = threadIdx.x * kLaneBins + i;
      const bool ends_behind = digit + 1 == kDigitBins || rank < before[i] + count[i];
      if (before[i] > rank || !ends_behind) continue;  // one bin of all passes
      state.rank[t] = rank - before[i];
      state.prefix[t] |= static_cast<std::int64_t>(digit) << digit_shift(args.pass);
    }
  }
  __syncthreads();

  if (threadIdx.x != 0) return;
  *args.state = state;
  if (args.pass + 1 == kDigitPasses) write_thresholds(state, args.num_targets, args.thresholds);
}

}  // namespace

Status sum_scores(const SumScores& args, void* stream) {
  const Status cleared = zero(args.sum, kSumWords * sizeof *args.sum, stream);
  if (cleared != Status::kOk || args.num_slots == 0) return cleared;
  const std::int64_t tiles = ceil_div(args.num_slots, kWarpTile * (kSumBlock / kWarp));
  const unsigned blocks = resident_blocks(tiles, kSumBlocksPerMultiprocessor);
  sum_scores_kernel<<<blocks, kSumBlock, 0, stream_of(stream)>>>(args);
  return launched();
}

Status mean_threshold(const MeanThreshold& args, void* stream) {
  mean_threshold_kernel<<<1, 1, 0, stream_of(stream)>>>(args);
  return launched();
}

Status count_digits(const CountDigits& args, void* stream) {
  const Status cleared = zero(args.counts, kMaxThresholds * kDigitBins * sizeof *args.counts, stream);
  const int targets = args.pass == 0 ? 1 : args.num_targets;
  if (cleared != Status::kOk || args.num_slots == 0 || targets == 0) return cleared;
  const std::int64_t tiles = ceil_div(args.num_slots, kDigitTile);
  const unsigned blocks = resident_blocks(tiles, kDigitBlocksPerMultiprocessor);
  const std::size_t shared_bytes = sizeof(std::uint32_t) * targets * copies_of_bins(targets) * kDigitBins;
  count_digits_kernel<<<blocks, kDigitBlock, shared_bytes, stream_of(stream)>>>(args, targets);
  return launched();
}

Status narrow_quantiles(const NarrowQuantiles& args, void* stream) {
  narrow_quantiles_kernel<<<1, kNarrowBlock, 0, stream_of(stream)>>>(args);
  return launched();
}

}  // namespace infobatch::cuda
