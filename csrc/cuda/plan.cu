// Plan: one pass over the scores makes the marks and counts them; a short one after it makes the kept slots selectable.
#include <cub/block/block_scan.cuh>

#include "parallel.cuh"

namespace infobatch::cuda {
namespace {

constexpr int kRowBlock = 256;  // threads, each with a row of marks at a time
constexpr int kRowBlocksPerMultiprocessor = 6;
constexpr int kTileEntries = kRowBlock * kRowSlots / kBlockMarks;  // of the directory, in a tile of kRowBlock rows
constexpr int kEntryRows = kBlockMarks / kRowSlots;
static_assert(2 * kEntryRows == kWarp);

// ---- what is counted of marks ----

// All kept marks; those whose tier has its lower bit, its upper bit, both bits set; the kept ones of these. Under one threshold
// no tier has an upper bit, and nothing is counted for it.
constexpr int kTallies = 7;
constexpr int kMostBlocks = kIndexScratch / kTallies;  // scratch is [7, kMostBlocks]

template <bool kSingle>
struct Tally {
  std::uint32_t of_thread[kTallies] = {};  // a thread meets fewer than 2^32 slots

  // Returns how many of these marks are kept.
  __device__ unsigned add(std::uint32_t marks) {
    constexpr std::uint32_t mask = static_cast<std::uint32_t>(kKeptMask);
    const std::uint32_t kept = marks & mask, low = (marks >> kTierShift) & mask, high = (marks >> (kTierShift + 1)) & mask;
    const unsigned ones = __popc(kept);
    of_thread[0] += ones;
    of_thread[1] += __popc(low);
    of_thread[4] += __popc(kept & low);
    if (kSingle) return ones;
    of_thread[2] += __popc(high);
    of_thread[3] += __popc(low & high);
    of_thread[5] += __popc(kept & high);
    of_thread[6] += __popc(kept & low & high);
    return ones;
  }
};

// Writes the kept marks of a tile for each entry of the directory; `ones` are those of a row. A half of a warp has an entry's
// rows.
__device__ void write_ones(const IndexBits& index, std::int64_t num_entries, std::int64_t tile, unsigned ones) {
  const unsigned lane = threadIdx.x % kWarp;
  const unsigned both = __reduce_add_sync(kAllLanes, lane < kEntryRows ? ones : ones << 16);
  const std::int64_t entry = tile * kTileEntries + threadIdx.x / kEntryRows;
  if (lane % kEntryRows == 0 && entry < num_entries) index.ones_before[entry] = lane == 0 ? both & 0xFFFFu : both >> 16;
}

// The sums over a block, in shared memory.
template <class Count>
__device__ void add_up(const Count (&of_thread)[kTallies], std::int64_t (&of_block)[kTallies]) {
  if (threadIdx.x < kTallies) of_block[threadIdx.x] = 0;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kTallies; ++i) {
    const std::int64_t of_warp = warp_sum(of_thread[i]);
    if (threadIdx.x % kWarp == 0) atomic_add(&of_block[i], of_warp);
  }
  __syncthreads();
}

// Leaves the sums over a block in scratch.
template <bool kSingle>
__device__ void write_tally(const Tally<kSingle>& tally, std::int64_t (&of_block)[kTallies], std::int64_t* scratch) {
  add_up(tally.of_thread, of_block);
  if (threadIdx.x < kTallies) scratch[threadIdx.x * kMostBlocks + blockIdx.x] = of_block[threadIdx.x];
}

// The tiles of a block are neighbours, so that the ones before it are those of the blocks before it.
struct Tiles {
  std::int64_t begin, end;
};

__device__ Tiles tiles_of_block(std::int64_t num_entries, unsigned blocks) {
  const std::int64_t tiles = ceil_div(num_entries, kTileEntries), each = ceil_div(tiles, blocks);
  return {min(blockIdx.x * each, tiles), min((blockIdx.x + 1) * each, tiles)};
}

// ---- tiers ----

__global__ void set_tiers_kernel(SetTiers args) { *args.tiers = tiers_of(args.cutoffs, args.scale); }

// ---- draws ----

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

// The tiles of a block. A thread makes a row at a time: eight scores, one Philox block, one word of marks. Draws of 32 bits
// would take two blocks a row.
template <bool kSingle, bool kProtects>
__device__ void draw_tiles(const DrawPlan& args, std::int64_t num_entries, const Levels& levels,
                           std::int64_t (&tally_of_block)[kTallies]) {
  const std::uint64_t first_row = static_cast<std::uint64_t>(args.first_slot) / kRowSlots;
  const Tiles tiles = tiles_of_block(num_entries, gridDim.x);
  Tally<kSingle> tally;
  for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    const std::int64_t row = tile * kRowBlock + threadIdx.x, filled = args.num_slots - row * kRowSlots;
    std::uint32_t marks = 0;
    if (filled > 0) {
      float scores[kRowSlots];
      load_scores<kRowSlots / 4>(args.scores, row * kRowSlots, 4, args.num_slots, scores);
      const PhiloxBlock block = draw(args.seed, first_row + static_cast<std::uint64_t>(row), args.epoch, Purpose::kKeep);
      marks = decide_row<kSingle ? 1 : kMaxThresholds>(scores, block, levels);
      if constexpr (kProtects) marks = protect_row(marks, args.protect[row]);
      if (filled < kRowSlots) marks &= (1u << (kMarkBits * filled)) - 1;
    }
    if (row < num_entries * kEntryRows) reinterpret_cast<std::uint32_t*>(args.marks)[row] = marks;
    write_ones(args.index, num_entries, tile, tally.add(marks));
  }
  write_tally(tally, tally_of_block, args.index.scratch);
}

template <bool kProtects>
__global__ void __launch_bounds__(kRowBlock, kRowBlocksPerMultiprocessor)
    draw_plan_kernel(DrawPlan args, std::int64_t num_entries) {
  __shared__ std::int64_t tally_of_block[kTallies];
  const Cutoffs cutoffs = args.tiers->cutoffs;
  const Levels levels{{args.thresholds[0], args.thresholds[1], args.thresholds[2]},
                      {level_of(cutoffs, 0), level_of(cutoffs, 1), level_of(cutoffs, 2), level_of(cutoffs, 3)}};
  if (one_threshold(levels.threshold)) draw_tiles<true, kProtects>(args, num_entries, levels, tally_of_block);
  else draw_tiles<false, kProtects>(args, num_entries, levels, tally_of_block);
}

// The same counts of marks that are there already.
__global__ void __launch_bounds__(kRowBlock) count_marks_kernel(IndexBits args, std::int64_t num_entries) {
  __shared__ std::int64_t tally_of_block[kTallies];
  const Tiles tiles = tiles_of_block(num_entries, gridDim.x);
  Tally<false> tally;
  for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    const std::int64_t row = tile * kRowBlock + threadIdx.x;
    const std::uint32_t marks = row < num_entries * kEntryRows ? reinterpret_cast<const std::uint32_t*>(args.words)[row] : 0;
    write_ones(args, num_entries, tile, tally.add(marks));
  }
  write_tally(tally, tally_of_block, args.scratch);
}

// ---- the directory ----

// The kept marks of the blocks before this one, by all of its threads.
__device__ std::int64_t ones_of_blocks_before(const std::int64_t* scratch, std::int64_t& sum) {
  if (threadIdx.x == 0) sum = 0;
  std::int64_t of_thread = 0;
  for (unsigned block = threadIdx.x; block < blockIdx.x; block += kRowBlock) of_thread += scratch[block];
  __syncthreads();
  const std::int64_t of_warp = warp_sum(of_thread);
  if (threadIdx.x % kWarp == 0) atomic_add(&sum, of_warp);
  __syncthreads();
  return sum;
}

// counts[9] from the tallies of `blocks` blocks, by one block.
__device__ void write_counts(const IndexBits& args, unsigned blocks, std::int64_t (&sums)[kTallies]) {
  std::int64_t of_thread[kTallies] = {};
  for (unsigned block = threadIdx.x; block < blocks; block += kRowBlock) {
#pragma unroll
    for (int i = 0; i < kTallies; ++i) of_thread[i] += args.scratch[i * kMostBlocks + block];
  }
  add_up(of_thread, sums);
  if (threadIdx.x != 0) return;
  args.counts[0] = sums[0];
  const std::int64_t all[2] = {args.num_marks, sums[0]};
  for (int kept = 0; kept < 2; ++kept) {
    const std::int64_t low = sums[1 + 3 * kept], high = sums[2 + 3 * kept], both = sums[3 + 3 * kept];
    std::int64_t* tiers = args.counts + 1 + kept * kMaxTiers;
    tiers[0] = all[kept] - low - high + both;
    tiers[1] = low - both;
    tiers[2] = high - both;
    tiers[3] = both;
  }
}

constexpr int kThreadEntries = 4;
// More than those that counted, so that the block which is more finds a place beside them.
constexpr int kDirectoryBlocksPerMultiprocessor = kRowBlocksPerMultiprocessor + 1;

// Launched like the kernel that counted, so that a block has the same tiles, and with one block more, which adds up the
// tallies. ones_before holds each entry's own ones, and becomes what it is called.
__global__ void __launch_bounds__(kRowBlock, kDirectoryBlocksPerMultiprocessor)
    write_directory_kernel(IndexBits args, std::int64_t num_entries) {
  using Scan = cub::BlockScan<unsigned, kRowBlock>;
  __shared__ typename Scan::TempStorage scan;
  __shared__ std::int64_t sums[kTallies];
  const unsigned counting = gridDim.x - 1;
  if (blockIdx.x == counting) {
    write_counts(args, counting, sums);
    return;
  }

  const Tiles tiles = tiles_of_block(num_entries, counting);
  const std::int64_t end = min(tiles.end * kTileEntries, num_entries);
  std::int64_t running = ones_of_blocks_before(args.scratch, sums[0]);
  for (std::int64_t first = tiles.begin * kTileEntries; first < end; first += kThreadEntries * kRowBlock) {
    const std::int64_t mine = first + kThreadEntries * threadIdx.x;
    unsigned ones[kThreadEntries], before[kThreadEntries], total;
#pragma unroll
    for (int i = 0; i < kThreadEntries; ++i) ones[i] = mine + i < end ? static_cast<unsigned>(args.ones_before[mine + i]) : 0;
    Scan(scan).ExclusiveSum(ones, before, total);
#pragma unroll
    for (int i = 0; i < kThreadEntries; ++i) {
      if (mine + i >= end) continue;
      const std::int64_t ones_before = running + before[i];
      args.ones_before[mine + i] = ones_before;
      write_hints(args.hints, num_entries, mine + i, ones_before, ones_before + ones[i]);
      if (mine + i == num_entries - 1) args.ones_before[num_entries] = ones_before + ones[i];
    }
    running += total;
    __syncthreads();  // the scan's storage is free again
  }
}

Status clear_directory(const IndexBits& args, void* stream) {
  const Status cleared = zero(args.ones_before, sizeof *args.ones_before, stream);
  return cleared == Status::kOk ? zero(args.counts, kIndexCounts * sizeof *args.counts, stream) : cleared;
}

unsigned blocks_of(std::int64_t num_entries) {
  return std::min<unsigned>(resident_blocks(ceil_div(num_entries, kTileEntries), kRowBlocksPerMultiprocessor), kMostBlocks);
}

}  // namespace

Status set_tiers(const SetTiers& args, void* stream) {
  set_tiers_kernel<<<1, 1, 0, stream_of(stream)>>>(args);
  return launched();
}

Status draw_plan(const DrawPlan& args, void* stream) {
  const std::int64_t entries = num_blocks(args.num_slots);
  if (entries == 0) return clear_directory(args.index, stream);
  const unsigned blocks = blocks_of(entries);
  const auto kernel = args.protect ? draw_plan_kernel<true> : draw_plan_kernel<false>;  // nothing is paid where none is
  kernel<<<blocks, kRowBlock, 0, stream_of(stream)>>>(args, entries);
  write_directory_kernel<<<blocks + 1, kRowBlock, 0, stream_of(stream)>>>(args.index, entries);
  return launched();
}

Status index_bits(const IndexBits& args, void* stream) {
  const std::int64_t entries = num_blocks(args.num_marks);
  if (entries == 0) return clear_directory(args, stream);
  const unsigned blocks = blocks_of(entries);
  count_marks_kernel<<<blocks, kRowBlock, 0, stream_of(stream)>>>(args, entries);
  write_directory_kernel<<<blocks + 1, kRowBlock, 0, stream_of(stream)>>>(args, entries);
  return launched();
}

}  // namespace infobatch::cuda
