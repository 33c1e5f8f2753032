// How the CUDA backend spreads a table over blocks, and adds up what their warps find.
#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "../backends.h"

namespace infobatch::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

inline cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

// Keeps the error for last_error.
Status status_of(cudaError_t error) noexcept;

// Whether the launches just made were accepted.
inline Status launched() noexcept { return status_of(cudaGetLastError()); }

inline Status zero(void* memory, std::int64_t bytes, void* stream) noexcept {
  return status_of(cudaMemsetAsync(memory, 0, static_cast<std::size_t>(bytes), stream_of(stream)));
}

IB_HD constexpr std::int64_t ceil_div(std::int64_t total, std::int64_t part) { return (total + part - 1) / part; }

// Blocks that give every item a thread. Kernels stride by the grid all the same, as a grid holds fewer than 2^31 blocks.
inline unsigned blocks_for(std::int64_t items, int block_size) {
  constexpr std::int64_t kMostBlocks = 1 << 30;
  return static_cast<unsigned>(std::min(ceil_div(items, block_size), kMostBlocks));
}

// Blocks of a kernel that walks `tiles` with as many as the current device holds at a time.
unsigned resident_blocks(std::int64_t tiles, int blocks_per_multiprocessor) noexcept;

__device__ inline std::int64_t thread_in_grid() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

__device__ inline std::int64_t threads_in_grid() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

// From this compute capability on a few blocks can form a cluster: they run at the same time, and have a barrier.
inline constexpr int kClusterVersion = 90;

// Of all threads of a cluster. What they did to memory before it is seen by all of them after it.
__device__ inline void cluster_barrier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cooperative_groups::this_cluster().sync();
#endif
}

// The sum over the warp, in lane 0.
__device__ inline std::int64_t warp_sum(std::int64_t value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_down_sync(kAllLanes, value, step);
  return value;
}

// atomicAdd of a signed 64-bit number, which CUDA has for unsigned ones only: the bits are the same.
__device__ inline void atomic_add(std::int64_t* sum, std::int64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(sum), static_cast<unsigned long long>(value));
}

// What other blocks of the same grid have added: from the cache that they share.
__device__ inline std::int64_t load_shared_by_blocks(const std::int64_t* word) {
  return static_cast<std::int64_t>(__ldcg(reinterpret_cast<const long long*>(word)));
}

// Whether this is the last block of the grid that comes here. If so, it sees what all others did to memory before. All threads
// of a block come together. The ticket is zero before the launch, and again after it.
__device__ inline bool is_last_block(std::int64_t* ticket) {
  __threadfence();
  __syncthreads();
  const bool last = threadIdx.x == 0 && atomicInc(reinterpret_cast<unsigned*>(ticket), gridDim.x - 1) == gridDim.x - 1;
  return __syncthreads_or(last) != 0;
}

// kQuads times four neighbouring scores, from scores[first], scores[first + stride], ...; all multiples of four. Unseen behind
// the last slot. One test for all, so that the loads are in flight together.
template <int kQuads>
__device__ inline void load_scores(const float* scores, std::int64_t first, std::int64_t stride, std::int64_t num_slots,
                                   float (&loaded)[4 * kQuads]) {
  if (first + (kQuads - 1) * stride + 4 <= num_slots) {
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) {
      const float4 four = *reinterpret_cast<const float4*>(scores + first + quad * stride);
      loaded[4 * quad] = four.x, loaded[4 * quad + 1] = four.y, loaded[4 * quad + 2] = four.z, loaded[4 * quad + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i) {
      const std::int64_t slot = first + i / 4 * stride + i % 4;
      loaded[i] = slot < num_slots ? scores[slot] : float_of(kUnseenBits);
    }
  }
}

}  // namespace infobatch::cuda
