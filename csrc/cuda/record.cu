// Record: losses go to their slots, weights come back. Look up: where samples stand and what their marks are.
//
// Which of several scores for one sample is stored must not depend on the order of threads. So each thread with a finite score
// first claims its slot: atomicMax puts a NaN there that carries the thread's place in the batch. Then each thread swaps its
// score in where its own claim has stayed, which is so for the highest place alone. As unsigned integers, quiet NaNs with the
// sign set exceed all other floats: every finite score of either sign, both infinities and the NaN of unseen samples. So a
// claim always beats what the table holds. Every claim that stays is swapped out by its own thread; none outlives the call.
//
// With momentum a score is blended with the one from before the call, so all threads read those before the first one claims.
#include <atomic>

#include "parallel.cuh"

namespace infobatch::cuda {
namespace {

constexpr std::uint32_t kClaim = 0xFFC00000u;
constexpr std::int64_t kMostClaims = 1 << 22;  // places that fit into the NaN's payload; larger batches go in parts, in order

constexpr int kRecordBlock = 256;
constexpr int kOneBlock = 1024;      // threads of a block at most
constexpr int kClusterBlocks = 8;    // what every GPU with clusters takes
constexpr int kClusterThreads = 64;  // of a block at least: a multiprocessor starts atomic operations one after the other

constexpr std::int64_t kForeignSample = -1, kNoSuchSample = -2, kNoItem = -3;

// The slot in the shard's table, or a negative code.
__device__ std::int64_t locate(const Shard& shard, std::int64_t id) {
  if (static_cast<std::uint64_t>(id) >= shard.deal.size) return kNoSuchSample;  // a negative id is beyond any size
  const std::int64_t slot = static_cast<std::int64_t>(permute(shard.deal, static_cast<std::uint64_t>(id))) - shard.first_slot;
  return slot >= 0 && slot < shard.num_slots ? slot : kForeignSample;
}

// Adds how many lanes of the warp have a fault, at once: a batch of nothing but faults would go through one address otherwise.
__device__ bool count_fault(std::int64_t* faults, Fault fault, bool has_it) {
  const unsigned lanes = __ballot_sync(kAllLanes, has_it);
  const bool first = static_cast<int>(threadIdx.x % kWarp) == __ffs(lanes) - 1;
  if (first) atomic_add(faults + fault, __popc(lanes));
  return first;
}

__device__ void name_fault(std::int64_t* faults, Fault fault, std::int64_t id) {
  atomicExch(reinterpret_cast<unsigned long long*>(faults + fault), static_cast<unsigned long long>(id));
}

// All lanes of a warp come here together.
__device__ void count_bad(std::int64_t* faults, std::int64_t slot, std::int64_t id) {
  const bool first = count_fault(faults, kOutOfRange, slot == kNoSuchSample);
  if (count_fault(faults, kForeign, slot == kForeignSample) || first) name_fault(faults, kBadId, id);
}

__device__ std::uint32_t* score_word(const Record& args, std::int64_t slot) {
  return reinterpret_cast<std::uint32_t*>(args.scores + slot);
}

// Selects between registers: a load by the tier would wait for the mark first, and an array cannot be indexed in registers.
__device__ float weight_of_tier(const float (&weights)[kMaxTiers], std::uint32_t tier) {
  const float low = tier & 1 ? weights[1] : weights[0], high = tier & 1 ? weights[3] : weights[2];
  return tier & 2 ? high : low;
}

struct Item {
  std::int64_t id, slot;  // the slot as `locate` returns it, or kNoItem
  float score;            // to be stored, if there is a slot
};

__device__ Item item_at(const Record& args, std::int64_t i) {
  if (i >= args.count) return {0, kNoItem, 0.0f};
  const std::int64_t id = args.index[i];
  return {id, locate(args.shard, id), args.new_scores[i]};
}

// Before any slot is claimed.
__device__ float blended(const Record& args, const Item& item) {
  return item.slot >= 0 ? blend(args.momentum, args.scores[item.slot], item.score) : item.score;
}

// The mark of a slot, which is visited from now on if the samples were trained on.
__device__ std::uint32_t visit(const Record& args, std::int64_t slot) {
  std::uint32_t* const row = reinterpret_cast<std::uint32_t*>(args.marks) + slot / kRowSlots;
  const int place = kMarkBits * static_cast<int>(slot % kRowSlots);
  return ((args.visits ? atomicOr(row, kVisitedMark << place) : *row) >> place) & 0xFu;
}

// Whether blended scores stand where the weights are to be: these then come last.
__device__ bool has_weights_last(const Record& args) { return args.new_scores == args.weights; }

// Everything but the score of item i, whose slot is claimed. Returns whether the score is to be stored. All lanes of a warp
// come here together, those behind the last item too.
__device__ bool claim(const Record& args, std::int64_t i, const Item& item) {
  const auto [id, slot, score] = item;
  const Tiers tiers = *args.tiers;
  count_bad(args.faults, slot, id);
  const bool finite = slot >= 0 && is_finite_bits(bits_of(score));
  count_fault(args.faults, kNonFinite, slot >= 0 && !finite);
  if (finite) atomicMax(score_word(args, slot), kClaim + static_cast<std::uint32_t>(i));
  const std::uint32_t mark = slot >= 0 ? visit(args, slot) : kKeptMark;
  if (count_fault(args.faults, kUnkept, args.visits && (mark & kKeptMark) == 0)) name_fault(args.faults, kUnkeptId, id);
  if (slot == kNoItem) return false;
  if (slot < 0) args.weights[i] = args.share;
  else if (!has_weights_last(args)) args.weights[i] = weight_of_tier(tiers.weights, tier_of_mark(mark)) * args.share;
  return finite;
}

__device__ void store(const Record& args, std::int64_t i, const Item& item) {
  atomicCAS(score_word(args, item.slot), kClaim + static_cast<std::uint32_t>(i), bits_of(item.score));
}

// Of all threads that record a batch in one launch.
template <bool kCluster>
__device__ void batch_barrier() {
  if constexpr (kCluster) cluster_barrier();
  else __syncthreads();
}

// A batch in one launch, by a block or by a cluster of blocks. A barrier stands between the last claim and the first store, and
// another one between the last look at an old score and the first claim.
template <bool kCluster>
__global__ void __launch_bounds__(kOneBlock) record_at_once_kernel(Record args) {
  const std::int64_t i = thread_in_grid();
  Item item = item_at(args, i);
  if (blends(args.momentum)) {
    item.score = blended(args, item);
    batch_barrier<kCluster>();
  }
  const bool stores = claim(args, i, item);
  batch_barrier<kCluster>();
  if (stores) store(args, i, item);
}

// A launch of blocks of `threads` as one cluster.
struct ClusterLaunch {
  ClusterLaunch(unsigned threads, void* stream) {
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {kClusterBlocks, 1, 1};
    config.gridDim = dim3(kClusterBlocks);
    config.blockDim = dim3(threads);
    config.stream = stream_of(stream);
    config.attrs = &cluster;
    config.numAttrs = 1;
  }
  ClusterLaunch(const ClusterLaunch&) = delete;
  ClusterLaunch& operator=(const ClusterLaunch&) = delete;

  cudaLaunchAttribute cluster{};
  cudaLaunchConfig_t config{};
};

// Whether the current device has room for the largest cluster: a slice of a GPU may have too few multiprocessors.
bool has_room_for_cluster() {
  const ClusterLaunch largest(kOneBlock, nullptr);
  int clusters = 0;
  const cudaError_t asked = cudaOccupancyMaxActiveClusters(&clusters, record_at_once_kernel<true>, &largest.config);
  return status_of(asked) == Status::kOk && clusters > 0;
}

// Whether the code that runs on the current device has clusters, and these have room there.
bool has_clusters() {
  constexpr int kKnown = 64, kNotAsked = 0, kYes = 1, kNo = 2;
  static std::atomic<int> answers[kKnown];
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= kKnown) return false;
  int answer = answers[device].load(std::memory_order_relaxed);
  if (answer == kNotAsked) {
    cudaFuncAttributes code;  // not the device's own version: code made for an older one runs on it without the barrier
    const Status asked = status_of(cudaFuncGetAttributes(&code, record_at_once_kernel<true>));
    const bool has_code = asked == Status::kOk && code.ptxVersion >= kClusterVersion;
    answer = has_code && has_room_for_cluster() ? kYes : kNo;
    answers[device].store(answer, std::memory_order_relaxed);
  }
  return answer == kYes;
}

Status record_in_cluster(const Record& args, void* stream) {
  const std::int64_t share = std::max<std::int64_t>(ceil_div(args.count, kClusterBlocks), kClusterThreads);
  const ClusterLaunch launch(static_cast<unsigned>(ceil_div(share, kWarp)) * kWarp, stream);
  return status_of(cudaLaunchKernelEx(&launch.config, record_at_once_kernel<true>, args));
}

// Into the memory of the weights.
__global__ void __launch_bounds__(kRecordBlock) blend_kernel(Record args) {
  for (std::int64_t i = thread_in_grid(); i < args.count; i += threads_in_grid()) {
    args.weights[i] = blended(args, item_at(args, i));
  }
}

__global__ void __launch_bounds__(kRecordBlock) claim_kernel(Record args) {
  const std::int64_t i = thread_in_grid();
  claim(args, i, item_at(args, i));
}

// Finds the slots once more, since there is no room to keep them.
__global__ void __launch_bounds__(kRecordBlock) store_kernel(Record args) {
  const std::int64_t i = thread_in_grid();
  if (i >= args.count) return;
  const bool finite = is_finite_bits(bits_of(args.new_scores[i]));
  if (!finite && !has_weights_last(args)) return;
  const Item item = item_at(args, i);
  if (item.slot < 0) return;
  if (finite) store(args, i, item);
  if (!has_weights_last(args)) return;
  const std::uint32_t mark = mark_at(args.marks, static_cast<std::uint64_t>(item.slot));
  args.weights[i] = args.tiers->weights[tier_of_mark(mark)] * args.share;
}

__global__ void __launch_bounds__(kRecordBlock) look_up_kernel(LookUp args) {
  const std::int64_t i = thread_in_grid();
  const std::int64_t id = i < args.count ? args.index[i] : 0, slot = i < args.count ? locate(args.shard, id) : kNoItem;
  count_bad(args.faults, slot, id);
  if (i >= args.count) return;
  args.slots[i] = slot < 0 ? -1 : slot;
  args.found[i] = slot < 0 ? 0 : static_cast<std::uint8_t>(mark_at(args.marks, static_cast<std::uint64_t>(slot)));
}

}  // namespace

Status record(const Record& args, void* stream) {
  if (args.count == 0) return Status::kOk;
  if (args.count > kClusterThreads && args.count <= kClusterBlocks * kOneBlock && has_clusters()) {
    return record_in_cluster(args, stream);
  }
  if (args.count <= kOneBlock) {
    const unsigned threads = static_cast<unsigned>(ceil_div(args.count, kWarp)) * kWarp;
    record_at_once_kernel<false><<<1, threads, 0, stream_of(stream)>>>(args);
    return launched();
  }
  Record all = args;
  if (blends(args.momentum)) {
    blend_kernel<<<blocks_for(args.count, kRecordBlock), kRecordBlock, 0, stream_of(stream)>>>(args);
    all.new_scores = args.weights;
  }
  for (std::int64_t start = 0; start < args.count; start += kMostClaims) {
    Record part = all;
    part.index += start;
    part.new_scores += start;
    part.weights += start;
    part.count = std::min(kMostClaims, args.count - start);
    const unsigned blocks = blocks_for(part.count, kRecordBlock);
    claim_kernel<<<blocks, kRecordBlock, 0, stream_of(stream)>>>(part);
    store_kernel<<<blocks, kRecordBlock, 0, stream_of(stream)>>>(part);
    const Status status = launched();
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

Status look_up(const LookUp& args, void* stream) {
  if (args.count == 0) return Status::kOk;
  look_up_kernel<<<blocks_for(args.count, kRecordBlock), kRecordBlock, 0, stream_of(stream)>>>(args);
  return launched();
}

}  // namespace infobatch::cuda
