// What lets one header serve host compilers and nvcc alike.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define IB_HD __host__ __device__ inline
#else
#define IB_HD inline
#endif

namespace infobatch {

// Number of the current bit-exact algorithm (docs/algorithm.md). It goes up when any kept set,
// weight or order would change, and is stored in every checkpoint.
inline constexpr int kAlgorithmVersion = 1;

}  // namespace infobatch
