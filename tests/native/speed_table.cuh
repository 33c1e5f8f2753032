// A table of n slots on the device, with all that the backend's functions need for it.
#pragma once

#include <cmath>

#include "../../csrc/backends.h"
#include "cuda_checked.h"

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::int64_t size) : bytes_(static_cast<std::size_t>(size) * sizeof(T)) {
    CHECKED(cudaMalloc(&data_, bytes_));
    CHECKED(cudaMemset(data_, 0, bytes_));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  void copy_from(const DeviceArray& other) { CHECKED(cudaMemcpyAsync(data_, other.data_, bytes_, cudaMemcpyDeviceToDevice)); }
  T at(std::int64_t i) const {
    T item;
    CHECKED(cudaMemcpy(&item, data_ + i, sizeof item, cudaMemcpyDeviceToHost));
    return item;
  }

 private:
  std::size_t bytes_;
  T* data_ = nullptr;
};

// A hash of its own for each place (SplitMix64's last steps).
__device__ inline std::uint64_t mixed(std::uint64_t place) {
  std::uint64_t z = (place + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

template <class T, class Make>
__global__ void fill_kernel(T* items, std::int64_t count, Make make) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    items[i] = make(static_cast<std::uint64_t>(i));
  }
}

struct ExponentialScore {
  __device__ float operator()(std::uint64_t place) const { return -log1pf(-static_cast<float>(mixed(place) >> 40) * 0x1p-24f); }
};

struct AnyId {
  std::uint64_t size;
  __device__ std::int64_t operator()(std::uint64_t place) const { return static_cast<std::int64_t>(mixed(~place) % size); }
};

struct BitInEight {
  __device__ std::uint8_t operator()(std::uint64_t place) const {
    const std::uint64_t bits = mixed(place);
    return static_cast<std::uint8_t>(bits & (bits >> 8) & (bits >> 16));
  }
};

// As of losses, to a few digits: what it takes to solve for the tiers depends on the bins, not on the last bit of a norm.
struct NormOfBin {
  __device__ double operator()(std::uint64_t place) const {
    return -expm1(-static_cast<double>(infobatch::edge_of_digit(infobatch::kFirstPositive + static_cast<int>(place))));
  }
};

struct SpacedKey {
  std::int32_t lowest, width;
  __device__ std::int32_t operator()(std::uint64_t place) const {
    return lowest + width * static_cast<std::int32_t>(place + 1);
  }
};

struct Table {
  static constexpr std::int64_t kIds = 1 << 24;  // more than a cache holds the slots of

  explicit Table(std::int64_t size) : num_slots(size) {
    fill(scores, num_slots, ExponentialScore{});
    fill(protect, (num_slots + 7) / 8, BitInEight{});
    fill(norms, infobatch::kNorms, NormOfBin{});
    fill(index, kIds, AnyId{static_cast<std::uint64_t>(num_slots)});
    fill(new_scores, kIds, ExponentialScore{});
    constexpr double quantiles[] = {0.85, 0.5, 0.2};
    infobatch::cuda::set_tiers(set_tiers(), nullptr);
    for (int t = 0; t < 3; ++t) fractions[t] = static_cast<std::uint64_t>(std::ceil(quantiles[t] * 0x1p32));
  }
  static std::int64_t bytes_for(std::int64_t num_slots) { return 14 * num_slots + kIds * 32; }

  std::int64_t num_slots, blocks = infobatch::num_blocks(num_slots);
  infobatch::Shard shard{infobatch::make_permutation(static_cast<std::uint64_t>(num_slots), 1, infobatch::Purpose::kDeal, 0, 0),
                         0, num_slots};
  std::uint64_t fractions[infobatch::kMaxThresholds];
  DeviceArray<float> scores{num_slots}, new_scores{kIds}, weights{kIds};
  DeviceArray<std::uint8_t> protect{(num_slots + 7) / 8}, marks{infobatch::mark_bytes(num_slots)}, found{kIds};
  DeviceArray<std::uint8_t> remaining{infobatch::mark_bytes(num_slots)};
  DeviceArray<std::int64_t> index{kIds}, slots{kIds}, faults{infobatch::kNumFaults}, ids{num_slots};
  DeviceArray<std::int64_t> ones_before{blocks + 1}, counts{infobatch::kIndexCounts}, scratch{infobatch::kIndexScratch};
  DeviceArray<std::uint32_t> hints{blocks + 1};
  DeviceArray<std::int64_t> sum{infobatch::kSumWords + 1}, digits{infobatch::kDigitWords};
  DeviceArray<infobatch::QuantileState> state{1};
  DeviceArray<infobatch::Tiers> tiers{1}, other_tiers{1};
  DeviceArray<double> norms{infobatch::kNorms};
  DeviceArray<std::int64_t> numbers{2};
  DeviceArray<float> cuts{infobatch::kMaxThresholds};
  DeviceArray<float> mean{infobatch::kMaxThresholds}, quantiles{infobatch::kMaxThresholds};

  infobatch::IndexBits index_bits() const {
    return {words(), num_slots, ones_before.get(), hints.get(), counts.get(), scratch.get()};
  }
  infobatch::DigitPass digit_pass(int pass, int num_targets, bool alone = true) const {
    return {scores.get(), num_slots,       pass,  num_targets, {fractions[0], fractions[1], fractions[2]}, state.get(),
            digits.get(), quantiles.get(), alone, nullptr};
  }
  // Keeps 0.6, and each at least 0.1. Its tiers are not those of the plan, so that other measurements stay as they are.
  infobatch::CutByImportance cut() const {
    return {digits.get(), norms.get(), std::uint64_t{2576980378}, 6554, cuts.get(), other_tiers.get(), numbers.get()};
  }
  infobatch::SetTiers set_tiers() const { return {{{65536, 32768, 16384, 8192}}, 1.0, tiers.get()}; }
  infobatch::DrawPlan draw_plan(const DeviceArray<float>& thresholds, bool protects) const {
    return {.scores = scores.get(),
            .first_slot = 0,
            .num_slots = num_slots,
            .thresholds = thresholds.get(),
            .tiers = tiers.get(),
            .seed = 1,
            .epoch = 3,
            .protect = protects ? protect.get() : nullptr,
            .marks = marks.get(),
            .index = index_bits()};
  }
  infobatch::Record record(std::int64_t first, std::int64_t count, double momentum) const {
    return {.shard = shard,
            .scores = scores.get(),
            .marks = marks.get(),
            .faults = faults.get(),
            .tiers = tiers.get(),
            .visits = true,
            .share = 1,
            .momentum = momentum,
            .index = index.get() + first,
            .new_scores = new_scores.get() + first,
            .count = count,
            .weights = weights.get() + first};
  }
  infobatch::LookUp look_up(std::int64_t first, std::int64_t count) const {
    return {shard, marks.get(), faults.get(), index.get() + first, count, slots.get() + first, found.get() + first};
  }
  std::int64_t num_kept() const { return ones_before.at(blocks); }
  infobatch::EpochOrder epoch(std::int64_t kept) const {
    return {shard,
            infobatch::make_permutation(static_cast<std::uint64_t>(kept), 1, infobatch::Purpose::kShuffle, 3, 0),
            {words(), ones_before.get(), hints.get(), blocks}};
  }

 private:
  const std::uint64_t* words() const { return reinterpret_cast<const std::uint64_t*>(marks.get()); }

  template <class T, class Make>
  static void fill(DeviceArray<T>& array, std::int64_t count, Make make) {
    fill_kernel<<<1024, 256>>>(array.get(), count, make);
    CHECKED(cudaGetLastError());
  }
};
