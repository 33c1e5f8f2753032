// Importance sampling: tiers from the histogram of the scores. One warp; the host does not wait.
#include "parallel.cuh"

namespace infobatch::cuda {
namespace {

// Each step splits the factors that are left into as many parts as a warp has lanes.
__device__ double find_factor(const Group* groups, int num_groups, std::int64_t budget, std::uint32_t least) {
  const std::uint32_t lane = threadIdx.x;
  std::uint32_t low = 0, high = kHighestFactor;
  while (low < high) {
    const std::uint32_t step = (high - low) / kWarp + 1, last = low + step * (lane + 1) - 1;
    const bool keeps = last >= high || expected_kept(groups, num_groups, factor_of(last), least) >= budget;
    const std::uint32_t part = static_cast<std::uint32_t>(__ffs(__ballot_sync(kAllLanes, keeps))) - 1;
    low += part * step;
    high = min(low + step - 1, high);
  }
  return factor_of(low);
}

// The occupied ones of 32 digits, in their order, behind those before.
__device__ void add_bins(const CutByImportance& args, int digit, std::int64_t count, Group* bins, int& num_bins) {
  const unsigned occupied = __ballot_sync(kAllLanes, count > 0), before = (1u << threadIdx.x) - 1;
  if (count > 0) bins[num_bins + __popc(occupied & before)] = {count, args.norms[digit - kFirstPositive], digit + 1};
  num_bins += __popc(occupied);
}

__global__ void __launch_bounds__(kWarp) cut_by_importance_kernel(CutByImportance args) {
  __shared__ Group bins[kMaxGroups];
  const int lane = static_cast<int>(threadIdx.x);
  std::int64_t below = 0, negative = 0, total = 0;
  for (int digit = kFirstFinite + lane; digit < kFirstPositive; digit += kWarp) {
    const std::int64_t count = args.counts[digit];
    below += count;
    if (is_negative_digit(digit)) negative += count;
  }
  below = __shfl_sync(kAllLanes, warp_sum(below), 0);
  negative = warp_sum(negative);
  int num_bins = below > 0 ? 1 : 0;
  if (lane == 0 && below > 0) bins[0] = {below, kZeroNorm, kFirstPositive};
  for (int first = kFirstPositive; first < kEndOfFinite; first += kWarp) {
    const int digit = first + lane;
    const std::int64_t count = digit < kEndOfFinite ? args.counts[digit] : 0;
    total += count;
    add_bins(args, digit, count, bins, num_bins);
  }
  total = below + __shfl_sync(kAllLanes, warp_sum(total), 0);
  __syncwarp();  // the bins are there

  const auto find = [&](const Group* groups, int num_groups, std::int64_t budget) {
    return find_factor(groups, num_groups, budget, args.least);
  };
  const std::int64_t budget = kept_budget(total, args.kept_fraction);
  const ImportanceCuts cuts = infobatch::cut_by_importance(bins, num_bins, budget, args.least, find);
  if (lane != 0) return;
  for (int i = 0; i < kMaxThresholds; ++i) args.thresholds[i] = cuts.thresholds[i];
  *args.tiers = tiers_of(cuts.cutoffs, 1.0);
  args.numbers[0] = total + args.counts[kProtectedDigit];
  args.numbers[1] = negative;
}

}  // namespace

Status cut_by_importance(const CutByImportance& args, void* stream) {
  cut_by_importance_kernel<<<1, kWarp, 0, stream_of(stream)>>>(args);
  return launched();
}

}  // namespace infobatch::cuda
