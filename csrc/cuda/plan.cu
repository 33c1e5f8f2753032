// Plan: one pass over the scores makes the marks; the directory makes the kept slots selectable.
#include <cub/device/device_scan.cuh>

#include "parallel.cuh"

namespace infobatch::cuda {
namespace {

constexpr int kRowBlock = 256;
constexpr int kRowBlocksPerMultiprocessor = 6;

// What a tier does to a draw, in one number: level + (0xFFFF - lane) has the whole mark in its upper half. The lane is below
// the cutoff where this carries into bit 16, which is the kept bit; the tier stands above, out of the carry's reach.
__device__ std::uint32_t level_of(const Cutoffs& cutoffs, std::uint32_t tier) {
  return (make_mark(false, tier) << 16) + cutoffs.of_tier[tier];
}
static_assert(kLaneRange == 1u << 16 && kKeptMark == 1u && kTierShift > 1);

struct Levels {
  float threshold[kMaxThresholds];
  std::uint32_t of_tier[kMaxTiers];
};

// The marks of a row, decided by the first kThresholds thresholds.
template <int kThresholds>
__device__ std::uint32_t decide_row(const float (&scores)[kRowSlots], const PhiloxBlock& block, const Levels& levels) {
  std::uint32_t marks = 0;
#pragma unroll
  for (int lane = 0; lane < kRowSlots; ++lane) {
    std::uint32_t level = levels.of_tier[0];  // becomes that of the score's tier, by selects between registers
#pragma unroll
    for (int t = 0; t < kThresholds; ++t) level = scores[lane] < levels.threshold[t] ? levels.of_tier[t + 1] : level;
    marks |= ((level + (0xFFFFu - lane_of(block, lane))) >> 16) << (kMarkBits * lane);
  }
  return marks;
}

// A thread makes a row at a time: eight scores, one Philox block, one word of marks. In sm_90 code that is 160 instructions
// under one threshold, of which Philox takes 60 (20 wide products, 20 low ones, 20 three-way xors; the keys are made once).
// Draws of 32 bits would take two blocks a row.
template <bool kProtects>
__global__ void __launch_bounds__(kRowBlock, kRowBlocksPerMultiprocessor)
    draw_plan_kernel(DrawPlan args, std::int64_t num_rows) {
  const Levels levels{
      {args.thresholds[0], args.thresholds[1], args.thresholds[2]},
      {level_of(args.cutoffs, 0), level_of(args.cutoffs, 1), level_of(args.cutoffs, 2), level_of(args.cutoffs, 3)}};
  const bool single = one_threshold(levels.threshold);
  const std::uint64_t first_row = static_cast<std::uint64_t>(args.first_slot) / kRowSlots;
  for (std::int64_t row = thread_in_grid(); row < num_rows; row += threads_in_grid()) {
    const std::int64_t filled = args.num_slots - row * kRowSlots;
    std::uint32_t marks = 0;
    if (filled > 0) {
      float scores[kRowSlots];
      load_scores<kRowSlots / 4>(args.scores, row * kRowSlots, 4, args.num_slots, scores);
      const PhiloxBlock block = draw(args.seed, first_row + static_cast<std::uint64_t>(row), args.epoch, Purpose::kKeep);
      marks = single ? decide_row<1>(scores, block, levels) : decide_row<kMaxThresholds>(scores, block, levels);
      if constexpr (kProtects) marks = protect_row(marks, args.protect[row]);
      if (filled < kRowSlots) marks &= (1u << (kMarkBits * filled)) - 1;
    }
    reinterpret_cast<std::uint32_t*>(args.marks)[row] = marks;
  }
}

constexpr int kCountBlock = 256;
constexpr int kLanesPerBlock = 4;  // lanes that share a block of 512 bits: two words, one load of 16 bytes, each
static_assert(kBlockWords == 2 * kLanesPerBlock);

// The number of ones of each block, and a zero behind the last, where the scan leaves the total.
__global__ void __launch_bounds__(kCountBlock) count_ones_kernel(IndexBits args) {
  const std::int64_t lanes = args.num_blocks * kLanesPerBlock;
  if (thread_in_grid() == 0) args.ones_before[args.num_blocks] = 0;
  for (std::int64_t first = thread_in_grid() - threadIdx.x; first < lanes; first += threads_in_grid()) {
    const std::int64_t lane = first + threadIdx.x;
    int ones = 0;
    if (lane < lanes) {
      const ulonglong2 pair = reinterpret_cast<const ulonglong2*>(args.words)[lane];
      ones = kept_in_word(pair.x) + kept_in_word(pair.y);
    }
    for (int step = 1; step < kLanesPerBlock; step *= 2) ones += __shfl_xor_sync(kAllLanes, ones, step);
    if (lane < lanes && lane % kLanesPerBlock == 0) args.ones_before[lane / kLanesPerBlock] = ones;
  }
}

__global__ void __launch_bounds__(kCountBlock) write_hints_kernel(IndexBits args) {
  for (std::int64_t block = thread_in_grid(); block < args.num_blocks; block += threads_in_grid()) {
    write_hints(args.hints, args.num_blocks, block, args.ones_before[block], args.ones_before[block + 1]);
  }
}

cudaError_t scan_ones(const IndexBits& args, std::size_t& scratch_bytes, void* stream) {
  return cub::DeviceScan::ExclusiveSum(args.scratch, scratch_bytes, args.ones_before, args.ones_before, args.num_blocks + 1,
                                       stream_of(stream));
}

constexpr int kTierBlock = 256;
constexpr int kTierBlocksPerMultiprocessor = 8;
constexpr int kTierCounts = 2 * kMaxTiers;

// counts[2, 4] of the marks. Marks behind the last slot are zero: tier 0, not kept.
__global__ void __launch_bounds__(kTierBlock) count_tiers_kernel(CountTiers args, std::int64_t num_words) {
  __shared__ std::int64_t counts_of_block[kTierCounts];
  if (threadIdx.x < kTierCounts) counts_of_block[threadIdx.x] = 0;
  __syncthreads();

  const std::uint64_t* words = reinterpret_cast<const std::uint64_t*>(args.marks);
  std::uint32_t counts[kTierCounts] = {};  // a thread meets fewer than 2^32 slots
  for (std::int64_t w = thread_in_grid(); w < num_words; w += threads_in_grid()) {
    const std::uint64_t kept = words[w] & kKeptMask;
    const std::uint64_t low = (words[w] >> kTierShift) & kKeptMask, high = (words[w] >> (kTierShift + 1)) & kKeptMask;
    const std::uint64_t is_tier[kMaxTiers] = {kKeptMask & ~(low | high), low & ~high, high & ~low, low & high};
#pragma unroll
    for (int tier = 0; tier < kMaxTiers; ++tier) {
      counts[tier] += popcount64(is_tier[tier]);
      counts[kMaxTiers + tier] += popcount64(is_tier[tier] & kept);
    }
  }
#pragma unroll
  for (int i = 0; i < kTierCounts; ++i) {
    const std::int64_t of_warp = warp_sum(counts[i]);
    if (threadIdx.x % kWarp == 0) atomic_add(&counts_of_block[i], of_warp);
  }
  __syncthreads();

  if (threadIdx.x < kTierCounts) atomic_add(args.counts + threadIdx.x, counts_of_block[threadIdx.x]);
  if (thread_in_grid() == 0) atomic_add(args.counts, args.num_slots - num_words * (64 / kMarkBits));  // less the padding
}

}  // namespace

Status draw_plan(const DrawPlan& args, void* stream) {
  const std::int64_t rows = mark_bytes(args.num_slots) * 8 / (kRowSlots * kMarkBits);
  if (rows == 0) return Status::kOk;
  const unsigned blocks = resident_blocks(ceil_div(rows, kRowBlock), kRowBlocksPerMultiprocessor);
  const auto kernel = args.protect ? draw_plan_kernel<true> : draw_plan_kernel<false>;  // nothing is paid where none is
  kernel<<<blocks, kRowBlock, 0, stream_of(stream)>>>(args, rows);
  return launched();
}

std::int64_t index_bits_scratch(std::int64_t num_blocks) {
  IndexBits args{};
  args.num_blocks = num_blocks;
  std::size_t bytes = 0;
  return status_of(scan_ones(args, bytes, nullptr)) == Status::kOk ? static_cast<std::int64_t>(bytes) : 0;
}

Status index_bits(const IndexBits& args, void* stream) {
  if (args.num_blocks == 0) return zero(args.ones_before, sizeof *args.ones_before, stream);
  if (args.scratch == nullptr) return Status::kLaunchFailed;  // CUB would take it for a question about the size
  const unsigned count_blocks = blocks_for(args.num_blocks * kLanesPerBlock, kCountBlock);
  count_ones_kernel<<<count_blocks, kCountBlock, 0, stream_of(stream)>>>(args);
  const Status counted = launched();
  if (counted != Status::kOk) return counted;
  std::size_t scratch_bytes = static_cast<std::size_t>(args.scratch_bytes);
  const Status scanned = status_of(scan_ones(args, scratch_bytes, stream));
  if (scanned != Status::kOk) return scanned;
  write_hints_kernel<<<blocks_for(args.num_blocks, kCountBlock), kCountBlock, 0, stream_of(stream)>>>(args);
  return launched();
}

Status count_tiers(const CountTiers& args, void* stream) {
  const Status cleared = zero(args.counts, kTierCounts * sizeof *args.counts, stream);
  const std::int64_t words = mark_bytes(args.num_slots) / 8;
  if (cleared != Status::kOk || words == 0) return cleared;
  const unsigned blocks = resident_blocks(ceil_div(words, kTierBlock), kTierBlocksPerMultiprocessor);
  count_tiers_kernel<<<blocks, kTierBlock, 0, stream_of(stream)>>>(args, words);
  return launched();
}

}  // namespace infobatch::cuda
