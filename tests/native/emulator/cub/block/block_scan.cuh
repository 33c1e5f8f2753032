#pragma once

#include <cuda_runtime.h>

namespace cub {

// As the real one: all threads of a block come together, there are barriers inside, and the storage must not be used again
// before the caller's next barrier.
template <class T, int kThreads>
class BlockScan {
 public:
  struct TempStorage {
    T of_thread[kThreads];
  };

  explicit BlockScan(TempStorage& storage) : sums_(storage.of_thread) {}

  void ExclusiveSum(T value, T& before, T& total) {
    sums_[threadIdx.x] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int thread = 1; thread < kThreads; ++thread) sums_[thread] += sums_[thread - 1];
    }
    __syncthreads();
    before = threadIdx.x == 0 ? 0 : sums_[threadIdx.x - 1];
    total = sums_[kThreads - 1];
  }

  template <int kItems>
  void ExclusiveSum(T (&values)[kItems], T (&before)[kItems], T& total) {
    T sum = 0, before_thread;
    for (int i = 0; i < kItems; ++i) {
      const T value = values[i];
      before[i] = sum;
      sum += value;
    }
    ExclusiveSum(sum, before_thread, total);
    for (int i = 0; i < kItems; ++i) before[i] += before_thread;
  }

 private:
  T (&sums_)[kThreads];
};

}  // namespace cub
