// The histogram of the scores: their range, and how many are in each bin.
#include "parallel.cuh"

namespace infobatch::cuda {
namespace {

constexpr int kBlock = 512;
constexpr int kBlocksPerMultiprocessor = 3;
constexpr int kQuads = 4;  // loads of 16 bytes that a thread has in flight
constexpr int kThreadScores = 4 * kQuads;
constexpr std::int64_t kTile = kBlock * kThreadScores;

__device__ std::int32_t warp_min(std::int32_t value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value = min(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

__device__ void load_keys(const float* scores, std::int64_t tile, std::int64_t num_slots, std::int32_t (&keys)[kThreadScores]) {
  float loaded[kThreadScores];
  load_scores<kQuads>(scores, tile * kTile + 4 * threadIdx.x, 4 * kBlock, num_slots, loaded);
#pragma unroll
  for (int i = 0; i < kThreadScores; ++i) keys[i] = number_key(bits_of(loaded[i]));
}

// A bit for each of the slots of a thread that is of the tier.
__device__ std::uint32_t of_tier(const CountBins& args, std::int64_t tile) {
  if (args.marks == nullptr) return ~0u;
  std::uint32_t bits = 0;
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    const std::int64_t slot = tile * kTile + 4 * threadIdx.x + quad * 4 * kBlock;
    if (slot >= args.num_slots) continue;
    const std::uint32_t marks = *reinterpret_cast<const std::uint16_t*>(args.marks + slot / 2);  // of four slots
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool is_it = tier_of_mark(marks >> i * kMarkBits & 0xFu) == args.tier;
      bits |= static_cast<std::uint32_t>(is_it) << (4 * quad + i);
    }
  }
  return bits;
}

__global__ void __launch_bounds__(kWarp) clear_range_kernel(ScoreRange args) {
  if (threadIdx.x < kRangeKeys) args.keys[threadIdx.x] = kNoKey;
}

__global__ void __launch_bounds__(kBlock, kBlocksPerMultiprocessor) score_range_kernel(ScoreRange args) {
  __shared__ std::int32_t of_block[kRangeKeys];
  if (threadIdx.x < kRangeKeys) of_block[threadIdx.x] = kNoKey;
  __syncthreads();

  std::int32_t lowest[kRangeKeys] = {kNoKey, kNoKey, kNoKey};
  for (std::int64_t tile = blockIdx.x; tile * kTile < args.num_slots; tile += gridDim.x) {
    std::int32_t keys[kThreadScores];
    load_keys(args.scores, tile, args.num_slots, keys);
#pragma unroll
    for (int i = 0; i < kThreadScores; ++i) {
#pragma unroll
      for (int which = 0; which < kRangeKeys; ++which) lowest[which] = min(lowest[which], range_key(keys[i], which));
    }
  }
#pragma unroll
  for (int which = 0; which < kRangeKeys; ++which) {
    const std::int32_t of_warp = warp_min(lowest[which]);
    if (threadIdx.x % kWarp == 0) atomicMin(of_block + which, of_warp);
  }
  __syncthreads();
  if (threadIdx.x < kRangeKeys) atomicMin(args.keys + threadIdx.x, of_block[threadIdx.x]);
}

// An addition of one in shared memory, whose result nobody asks for, takes equal bins of a warp together by itself.
__global__ void __launch_bounds__(kBlock, kBlocksPerMultiprocessor) count_bins_kernel(CountBins args) {
  __shared__ std::int32_t edges[kMaxBins];
  __shared__ std::uint32_t bins[kMaxBins];  // a block counts fewer than 2^32 scores
  const int num_edges = args.num_bins - 1, step = first_step(num_edges);
  for (int i = threadIdx.x; i < kMaxBins; i += kBlock) edges[i] = i < num_edges ? args.edges[i] : kNoKey;
  for (int i = threadIdx.x; i < args.num_bins; i += kBlock) bins[i] = 0;
  __syncthreads();

  for (std::int64_t tile = blockIdx.x; tile * kTile < args.num_slots; tile += gridDim.x) {
    std::int32_t keys[kThreadScores];
    load_keys(args.scores, tile, args.num_slots, keys);
    const std::uint32_t counted = of_tier(args, tile);
#pragma unroll
    for (int i = 0; i < kThreadScores; ++i) {
      int bin = 0;
      for (int half = step; half > 0; half /= 2) bin = count_edges_once(edges, keys[i], bin, half);
      if (is_number_key(keys[i]) && (counted >> i & 1) != 0) atomicAdd(bins + bin, 1u);
    }
  }
  __syncthreads();
  for (int bin = threadIdx.x; bin < args.num_bins; bin += kBlock) {
    if (bins[bin] > 0) atomic_add(args.counts + bin, bins[bin]);
  }
}

unsigned blocks_of(std::int64_t num_slots) {
  return resident_blocks(std::max<std::int64_t>(1, ceil_div(num_slots, kTile)), kBlocksPerMultiprocessor);
}

}  // namespace

Status score_range(const ScoreRange& args, void* stream) {
  clear_range_kernel<<<1, kWarp, 0, stream_of(stream)>>>(args);
  score_range_kernel<<<blocks_of(args.num_slots), kBlock, 0, stream_of(stream)>>>(args);
  return launched();
}

Status count_bins(const CountBins& args, void* stream) {
  const Status cleared = zero(args.counts, args.num_bins * sizeof *args.counts, stream);
  if (cleared != Status::kOk) return cleared;
  count_bins_kernel<<<blocks_of(args.num_slots), kBlock, 0, stream_of(stream)>>>(args);
  return launched();
}

}  // namespace infobatch::cuda
