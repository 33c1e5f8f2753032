// Statistics of the scores: the exact sum behind the mean threshold, and radix selection behind the quantile tiers.
#include <cub/block/block_scan.cuh>

#include "window_sum.cuh"

namespace infobatch::cuda {
namespace {

// ---- the exact sum ----

constexpr int kSumBlock = 256;
constexpr int kSumBlocksPerMultiprocessor = 4;

// thresholds[3] from sum[11], by a warp. Each step splits the keys that are left into 32 parts.
__device__ void write_mean_threshold(const std::int64_t* sum, float* thresholds) {
  std::int64_t words[kSumWords];
  for (int i = 0; i < kSumWords; ++i) words[i] = load_shared_by_blocks(sum + i);
  const std::uint64_t seen = static_cast<std::uint64_t>(words[kLimbs]);
  const WideInteger total = normalise(words);
  const std::uint32_t lane = threadIdx.x % kWarp;
  std::uint32_t low = lowest_mean_key(), high = highest_mean_key();
  while (low < high) {
    const std::uint32_t step = (high - low) / kWarp + 1, last = low + step * (lane + 1) - 1;
    const unsigned reached = __ballot_sync(kAllLanes, last >= high || reaches_mean(last, seen, total));
    const std::uint32_t part = static_cast<std::uint32_t>(__ffs(reached)) - 1;
    low += part * step;
    high = min(low + step - 1, high);
  }
  if (lane != 0) return;
  thresholds[0] = seen == 0 ? float_of(kMinusInfinityBits) : threshold_of_key(low);
  thresholds[1] = thresholds[2] = float_of(kMinusInfinityBits);
}

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

  if (threadIdx.x == 0) {
    carry_limbs(limbs.words);  // so that what a block adds to a limb is below 2^32, however many scores it had
    for (int i = 0; i < kSumWords; ++i) atomic_add(args.sum + i, limbs.words[i]);
  }
  if (args.thresholds == nullptr || !is_last_block(args.sum + kSumWords)) return;
  if (threadIdx.x < kWarp) write_mean_threshold(args.sum, args.thresholds);
}

__global__ void __launch_bounds__(kWarp) mean_threshold_kernel(MeanThreshold args) {
  write_mean_threshold(args.sum, args.thresholds);
}

// ---- radix selection ----

constexpr int kDigitBlock = 512;
constexpr int kDigitBlocksPerMultiprocessor = 3;
constexpr int kDigitQuads = 4;  // loads of 16 bytes that a thread has in flight
constexpr std::int64_t kDigitTile = kDigitBlock * 4 * kDigitQuads;
constexpr int kThreadBins = kDigitBins / kDigitBlock;

using DigitScan = cub::BlockScan<std::int64_t, kDigitBlock>;

struct NarrowStorage {
  typename DigitScan::TempStorage scan;
  QuantileState state;
};

// start_quantiles, narrow_one and write_thresholds of the core, with a scan in place of the walk over the bins. By one block.
__device__ void narrow(const DigitPass& args, NarrowStorage& shared) {
  if (threadIdx.x == 0) shared.state = args.pass == 0 ? QuantileState{} : *args.state;

  for (int t = 0; t < args.num_targets; ++t) {
    const int first = static_cast<int>(threadIdx.x) * kThreadBins;
    const std::int64_t* counts = counts_of(args, t) + first;
    std::int64_t count = 0, before, total;
    for (int i = 0; i < kThreadBins; ++i) count += load_shared_by_blocks(counts + i);
    DigitScan(shared.scan).ExclusiveSum(count, before, total);
    if (args.pass == 0 && threadIdx.x == 0) {
      shared.state.seen = total;
      shared.state.rank[t] = quantile_rank(static_cast<std::uint64_t>(total), args.fractions[t]);
    }
    __syncthreads();  // the state is there, and the scan's storage free again
    const std::int64_t rank = shared.state.rank[t];
    __syncthreads();  // all have read what one is to change
    const bool is_last = first + kThreadBins == kDigitBins;
    if (before > rank || (rank >= before + count && !is_last)) continue;  // one thread has the bin
    int digit = first;
    for (std::int64_t ones; digit + 1 < first + kThreadBins; ++digit, before += ones) {
      ones = load_shared_by_blocks(counts + digit - first);
      if (rank < before + ones) break;
    }
    shared.state.rank[t] = rank - before;
    shared.state.prefix[t] |= static_cast<std::int64_t>(digit) << digit_shift(args.pass);
  }
  __syncthreads();

  if (threadIdx.x != 0) return;
  *args.state = shared.state;
  if (args.pass + 1 == kDigitPasses) write_thresholds(shared.state, args.num_targets, args.thresholds);
}

__global__ void __launch_bounds__(kDigitBlock) narrow_quantiles_kernel(DigitPass args) {
  __shared__ NarrowStorage narrowing;
  narrow(args, narrowing);
}

// Of four neighbouring slots the bits of those that are protected.
__device__ std::uint32_t protected_four(const DigitPass& args, std::int64_t slot) {
  return slot < args.num_slots ? args.protect[slot / kRowSlots] >> slot % kRowSlots & 0xFu : 0;
}

// The first pass has one target, whose prefix is empty. There the scores of a data set crowd in a few bins; an addition of one
// in shared memory, whose result nobody asks for, takes equal bins of a warp together by itself.
template <int kTargets, bool kFirst>
__global__ void __launch_bounds__(kDigitBlock, kDigitBlocksPerMultiprocessor) count_digits_kernel(DigitPass args) {
  __shared__ std::uint32_t bins[kTargets * kDigitBins];  // a block counts fewer than 2^32 scores
  __shared__ NarrowStorage narrowing;
  for (int i = threadIdx.x; i < kTargets * kDigitBins; i += kDigitBlock) bins[i] = 0;
  __syncthreads();

  const std::uint32_t mask = prefix_mask(args.pass);
  std::uint32_t prefix[kTargets];
#pragma unroll
  for (int t = 0; t < kTargets; ++t) prefix[t] = kFirst ? 0 : static_cast<std::uint32_t>(args.state->prefix[t]);
  for (std::int64_t tile = blockIdx.x; tile * kDigitTile < args.num_slots; tile += gridDim.x) {
    float scores[4 * kDigitQuads];
    const std::int64_t first = tile * kDigitTile + 4 * threadIdx.x;
    load_scores<kDigitQuads>(args.scores, first, 4 * kDigitBlock, args.num_slots, scores);
    std::uint32_t apart = 0;  // a bit for each of these scores
    if (kFirst && args.protect != nullptr) {
#pragma unroll
      for (int quad = 0; quad < kDigitQuads; ++quad) apart |= protected_four(args, first + quad * 4 * kDigitBlock) << 4 * quad;
    }
#pragma unroll
    for (int i = 0; i < 4 * kDigitQuads; ++i) {
      const std::uint32_t key = ordered_key(bits_of(scores[i]));
      int digit = static_cast<int>(digit_of(key, kFirst ? 0 : args.pass));
      if (kFirst && (apart >> i & 1) != 0 && digit < kEndOfFinite) digit = kProtectedDigit;
#pragma unroll
      for (int t = 0; t < kTargets; ++t) {
        if (kFirst || (key & mask) == prefix[t]) atomicAdd(bins + t * kDigitBins + digit, 1u);
      }
    }
  }
  __syncthreads();

  std::int64_t* counts = counts_of(args, 0);
  const int begin = kFirst ? kFirstFinite : 0, end = kFirst ? kEndOfSeen : kTargets * kDigitBins;
  for (int bin = begin + threadIdx.x; bin < end; bin += kDigitBlock) {
    if (bins[bin] > 0) atomic_add(counts + bin, bins[bin]);
  }
  if (args.alone && is_last_block(args.counts + kDigitWords - 1)) narrow(args, narrowing);
}

}  // namespace

Status sum_scores(const SumScores& args, void* stream) {
  const Status cleared = zero(args.sum, (kSumWords + 1) * sizeof *args.sum, stream);
  if (cleared != Status::kOk) return cleared;
  const std::int64_t tiles = std::max<std::int64_t>(1, ceil_div(args.num_slots, kWarpTile * (kSumBlock / kWarp)));
  const unsigned blocks = resident_blocks(tiles, kSumBlocksPerMultiprocessor);
  sum_scores_kernel<<<blocks, kSumBlock, 0, stream_of(stream)>>>(args);
  return launched();
}

Status mean_threshold(const MeanThreshold& args, void* stream) {
  mean_threshold_kernel<<<1, kWarp, 0, stream_of(stream)>>>(args);
  return launched();
}

Status count_digits(const DigitPass& args, void* stream) {
  const bool first = args.pass == 0;
  const Status cleared = first ? zero(args.counts, kDigitWords * sizeof *args.counts, stream) : Status::kOk;
  if (cleared != Status::kOk) return cleared;
  const std::int64_t tiles = std::max<std::int64_t>(1, ceil_div(args.num_slots, kDigitTile));
  const unsigned blocks = resident_blocks(tiles, kDigitBlocksPerMultiprocessor);
  const auto kernel = first                   ? count_digits_kernel<1, true>
                      : args.num_targets == 1 ? count_digits_kernel<1, false>
                      : args.num_targets == 2 ? count_digits_kernel<2, false>
                                              : count_digits_kernel<3, false>;
  kernel<<<blocks, kDigitBlock, 0, stream_of(stream)>>>(args);
  return launched();
}

Status narrow_quantiles(const DigitPass& args, void* stream) {
  narrow_quantiles_kernel<<<1, kDigitBlock, 0, stream_of(stream)>>>(args);
  return launched();
}

}  // namespace infobatch::cuda
