// The part of CUDA that the kernels use, for g++.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernel_side.h"

#define __host__
#define __device__
#define __global__
#define __launch_bounds__(...)

struct EmulatedIndex {
  unsigned x;
};
extern EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};
struct alignas(4) ushort2 {
  unsigned short x, y;
};

// ---- barriers and fences ----
#define EMULATOR_HERE emulator::Place here = emulator::Place::current()
inline void __syncthreads(EMULATOR_HERE) { emulator::barrier(false, here); }
inline int __syncthreads_or(int vote, EMULATOR_HERE) { return emulator::barrier(vote != 0, here); }
inline void __threadfence() { emulator::fence(); }

// ---- lanes ----
namespace emulator {
template <class T>
T ask_warp(Collective kind, unsigned lanes, T value, unsigned operand, Place place) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = collective(kind, lanes, bits, operand, place);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace emulator

template <class T>
T __shfl_sync(unsigned lanes, T value, int lane, EMULATOR_HERE) {
  return emulator::ask_warp(emulator::Collective::kShuffle, lanes, value, static_cast<unsigned>(lane), here);
}
template <class T>
T __shfl_down_sync(unsigned lanes, T value, unsigned step, EMULATOR_HERE) {
  return emulator::ask_warp(emulator::Collective::kShuffleDown, lanes, value, step, here);
}
template <class T>
T __shfl_up_sync(unsigned lanes, T value, unsigned step, EMULATOR_HERE) {
  return emulator::ask_warp(emulator::Collective::kShuffleUp, lanes, value, step, here);
}
template <class T>
T __shfl_xor_sync(unsigned lanes, T value, int bits, EMULATOR_HERE) {
  return emulator::ask_warp(emulator::Collective::kShuffleXor, lanes, value, static_cast<unsigned>(bits), here);
}
inline unsigned __reduce_add_sync(unsigned lanes, unsigned value, EMULATOR_HERE) {
  return emulator::ask_warp(emulator::Collective::kAdd, lanes, value, 0, here);
}
inline unsigned __reduce_max_sync(unsigned lanes, unsigned value, EMULATOR_HERE) {
  return emulator::ask_warp(emulator::Collective::kMax, lanes, value, 0, here);
}
inline int __all_sync(unsigned lanes, int vote, EMULATOR_HERE) {
  return emulator::ask_warp(emulator::Collective::kAll, lanes, static_cast<int>(vote != 0), 0, here);
}
inline int __any_sync(unsigned lanes, int vote, EMULATOR_HERE) {
  return emulator::ask_warp(emulator::Collective::kAny, lanes, static_cast<int>(vote != 0), 0, here);
}
inline unsigned __ballot_sync(unsigned lanes, int vote, EMULATOR_HERE) {
  return emulator::ask_warp(emulator::Collective::kBallot, lanes, static_cast<unsigned>(vote != 0), 0, here);
}
inline void __syncwarp(unsigned lanes = ~0u, EMULATOR_HERE) {
  emulator::collective(emulator::Collective::kSync, lanes, 0, 0, here);
}

// ---- memory that several threads change ----
namespace emulator {
template <class T, class Change>
__attribute__((noinline, no_sanitize("thread"))) T change_at_once(T* at, Change change) {
  maybe_switch();
  access(at, sizeof(T), Access::kAtomic);
  const T old = *at;
  *at = change(old);
  maybe_switch();
  return old;
}
}  // namespace emulator

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return emulator::change_at_once(at, [=](T old) { return old + value; });
}
inline unsigned atomicInc(unsigned* at, unsigned last) {
  return emulator::change_at_once(at, [=](unsigned old) { return old >= last ? 0 : old + 1; });
}
inline unsigned atomicMax(unsigned* at, unsigned value) {
  return emulator::change_at_once(at, [=](unsigned old) { return old > value ? old : value; });
}
inline int atomicMin(int* at, int value) {
  return emulator::change_at_once(at, [=](int old) { return old < value ? old : value; });
}
inline unsigned atomicOr(unsigned* at, unsigned value) {
  return emulator::change_at_once(at, [=](unsigned old) { return old | value; });
}
inline unsigned atomicCAS(unsigned* at, unsigned expected, unsigned value) {
  return emulator::change_at_once(at, [=](unsigned old) { return old == expected ? value : old; });
}
inline unsigned long long atomicExch(unsigned long long* at, unsigned long long value) {
  return emulator::change_at_once(at, [=](unsigned long long) { return value; });
}

// From the cache that multiprocessors share. What is read must have been ordered before, by a fence and an atomic operation.
template <class T>
__attribute__((noinline, no_sanitize("thread"))) T __ldcg(const T* at) {
  emulator::maybe_switch();
  emulator::access(at, sizeof(T), emulator::Access::kRead);
  return *at;
}

// ---- arithmetic ----
inline int __popc(unsigned word) { return __builtin_popcount(word); }
inline int __popcll(unsigned long long word) { return __builtin_popcountll(word); }
inline int __ffs(int word) { return __builtin_ffs(word); }
using std::max, std::min;  // device code has them without std::

// ---- calls of the host ----
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension = 4 };
using cudaStream_t = struct CUstream_st*;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct cudaLaunchAttributeValue {
  struct {
    unsigned x, y, z;
  } clusterDim;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
struct cudaFuncAttributes {
  int ptxVersion;
};

int emulated_version();   // of the code that the device takes
int emulated_clusters();  // that it has room for

template <class Kernel, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, Kernel* kernel, const Arguments&... arguments) {
  if (config->numAttrs != 1 || config->attrs->val.clusterDim.x != config->gridDim.x || emulated_clusters() == 0) {
    return cudaErrorInvalidConfiguration;
  }
  emulator::Launcher<Kernel*>{{"a cluster", config->gridDim.x, config->blockDim.x, true}, kernel}(arguments...);
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, Kernel*, const cudaLaunchConfig_t*) {
  *clusters = emulated_clusters();
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  attributes->ptxVersion = emulated_version();
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device);
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t);
