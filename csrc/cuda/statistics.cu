// Statistics of the scores: the exact sum behind the mean threshold, and radix selection behind the quantile tiers.
#include <cub/block/block_scan.cuh>

#include "window_sum.cuh"

namespace infobatch::cuda {
namespace {

// ---- the exact sum ----

constexpr int kSumBlock = 256;
constexpr int kSumBlocksPerMultiprocessor = 4;

__global__ void __launch_bounds__(kSumBlock, kSumBlocksPerMultiprocessor) sum_scores_kernel(SumScores args) {
  __shared__ Limbs limbs;
  for (int i = threadIdx.x; i < kSumWords; i += kSumBlock) limbs.words[i] = 0;
  __syncthreads();

  const std::int64_t lane = threadIdx.x % kWarp;
  std::uint32_t low = 0, seen = 0;
  std::int64_t sum = 0;
  int tiles = 0;
  for (std::int64_t tile = thread_in_grid() / kWarp; tile * kWarpTile < args.num_slots; tile += threads_in_grid() / kWarp) {
    float scores[kLaneScores];
    const std::int64_t first = tile * kWarpTile + 4 * lane;
    load_scores<kQuads>(args.scores, first, kQuadStride, args.num_slots, scores);
    bool moves = false;
    std::uint32_t top = 0;
    if (__all_sync(kAllLanes, add_inside(scores, low, sum))) {
      seen += kLaneScores;
    } else {
      top = survey(scores, low, seen);
      const unsigned lanes_outside = __ballot_sync(kAllLanes, top != 0);
      if (lanes_outside != 0) add_outside(args.scores, first, args.num_slots, low, top, limbs);
      moves = __popc(lanes_outside) > kWarp / 2;
    }
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
IB_HD constexpr int copies_of_bins(int targets) { return targets == 1 ? 4 : 2; }

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
  for (int t = 0; t < kMaxThresholds; ++t) {  // constant bounds, here and below, so that the prefixes stay in registers
    if (t < targets && args.pass > 0) prefix[t] = static_cast<std::uint32_t>(args.state->prefix[t]);
  }
  for (std::int64_t tile = blockIdx.x; tile * kDigitTile < args.num_slots; tile += gridDim.x) {
    float scores[4];
    load_scores<1>(args.scores, tile * kDigitTile + 4 * threadIdx.x, 0, args.num_slots, scores);
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t bits = bits_of(scores[i]), key = ordered_key(bits);
      for (int t = 0; t < kMaxThresholds; ++t) {
        if (t >= targets) continue;
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
    Scan(scan).ExclusiveSum(count, before, total);
    if (args.pass == 0 && threadIdx.x == 0) {
      state.seen = total;
      state.rank[t] = quantile_rank(static_cast<std::uint64_t>(total), args.fractions[t]);
    }
    __syncthreads();  // the state is there, and the scan's storage free again
    const std::int64_t rank = state.rank[t];
    __syncthreads();  // all have read what one is to change
    for (int i = 0; i < kLaneBins; ++i) {
      const int digit = threadIdx.x * kLaneBins + i;
      const bool ends_behind = digit + 1 == kDigitBins || rank < before[i] + count[i];
      if (before[i] > rank || !ends_behind) continue;  // holds for one bin
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
