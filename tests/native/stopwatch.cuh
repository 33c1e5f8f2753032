// How long the device works on a call, without the host's share.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "cuda_checked.h"

// Keeps the stream busy while the host puts calls behind it, so that no gap between launches is measured.
__global__ void wait_kernel(long long nanoseconds) {
  long long begin, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
  do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  while (now - begin < nanoseconds);
}

struct Timing {
  double median_us, low_us, high_us;  // of the device; low and high: the tenth and the ninetieth part of a hundred
  double call_us;                     // of the host, for the launch alone
};

class Stopwatch {
 public:
  Stopwatch() {
    for (cudaEvent_t& event : events_) CHECKED(cudaEventCreate(&event));
  }
  ~Stopwatch() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  // prepare(i) is not measured, call(i) is.
  template <class Prepare, class Call>
  Timing measure(const Prepare& prepare, const Call& call) {
    run(0, kWarmUp, prepare, call);
    const int repetitions = elapsed_us(kWarmUp - 1) > kSlow ? kFewRepetitions : kRepetitions;
    const double call_us = run(kWarmUp, repetitions, prepare, call);
    std::vector<double> times;
    for (int i = 0; i < repetitions; ++i) times.push_back(elapsed_us(i));
    std::sort(times.begin(), times.end());
    const std::size_t tenth = times.size() / 10;
    return {times[times.size() / 2], times[tenth], times[times.size() - 1 - tenth], call_us};
  }

 private:
  static constexpr int kWarmUp = 3, kRepetitions = 21, kFewRepetitions = 7;
  static constexpr double kSlow = 50000;       // microseconds
  static constexpr long long kWait = 2000000;  // nanoseconds: the host enqueues all repetitions within them

  // Returns the host's microseconds for a call.
  template <class Prepare, class Call>
  double run(int first, int count, const Prepare& prepare, const Call& call) {
    using Clock = std::chrono::steady_clock;
    Clock::duration in_calls{};
    wait_kernel<<<1, 1>>>(kWait);
    for (int i = 0; i < count; ++i) {
      prepare(first + i);
      CHECKED(cudaEventRecord(events_[2 * i]));
      const Clock::time_point begin = Clock::now();
      call(first + i);
      in_calls += Clock::now() - begin;
      CHECKED(cudaEventRecord(events_[2 * i + 1]));
    }
    CHECKED(cudaDeviceSynchronize());
    return std::chrono::duration<double, std::micro>(in_calls).count() / count;
  }

  double elapsed_us(int i) const {
    float milliseconds = 0;
    CHECKED(cudaEventElapsedTime(&milliseconds, events_[2 * i], events_[2 * i + 1]));
    return 1000.0 * milliseconds;
  }

  cudaEvent_t events_[2 * kRepetitions];
};
