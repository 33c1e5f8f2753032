// Importance sampling: tiers from the histogram of the scores. Microseconds, on one thread.
#include "../backends.h"

namespace infobatch::cpu {
namespace {

double find_factor(const Group* groups, int num_groups, std::int64_t budget, std::uint32_t least) {
  std::uint32_t low = 0, high = kHighestFactor;
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (expected_kept(groups, num_groups, factor_of(middle), least) >= budget) high = middle;
    else low = middle + 1;
  }
  return factor_of(low);
}

}  // namespace

Status cut_by_importance(const CutByImportance& args, int) {
  Group bins[kMaxGroups];
  int num_bins = 0;
  std::int64_t total = 0, negative = 0, below = 0;
  for (int digit = kFirstFinite; digit < kEndOfFinite; ++digit) {
    const std::int64_t count = args.counts[digit];
    total += count;
    if (is_negative_digit(digit)) negative += count;
    if (digit < kFirstPositive) below += count;
    else if (count > 0) bins[num_bins++] = {count, args.norms[digit - kFirstPositive], digit + 1};
    if (digit + 1 == kFirstPositive && below > 0) bins[num_bins++] = {below, kZeroNorm, kFirstPositive};
  }
  const auto find = [&](const Group* groups, int num_groups, std::int64_t budget) {
    return find_factor(groups, num_groups, budget, args.least);
  };
  const std::int64_t budget = kept_budget(total, args.kept_fraction);
  const ImportanceCuts cuts = infobatch::cut_by_importance(bins, num_bins, budget, args.least, find);
  for (int i = 0; i < kMaxThresholds; ++i) args.thresholds[i] = cuts.thresholds[i];
  *args.tiers = tiers_of(cuts.cutoffs, 1.0);
  args.numbers[0] = total + args.counts[kProtectedDigit];
  args.numbers[1] = negative;
  return Status::kOk;
}

}  // namespace infobatch::cpu
