#include <algorithm>

#include "checks.h"

using namespace infobatch;

namespace {

// Ascending edges at scores of the table and beside them, in a narrow part of the numbers or in all of it.
std::vector<std::int32_t> make_edges(const Case& c, int num_bins, const Twin<float>& scores, Random& random) {
  const bool anywhere = random.one_in(3);
  std::vector<std::int32_t> edges;
  while (static_cast<int>(edges.size()) + 1 < num_bins) {
    const std::int64_t slot = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(c.num_slots())));
    const std::int32_t key = number_key(anywhere ? random.bits() : bits_of(scores.host()[slot]));
    if (is_number_key(key)) edges.push_back(key + static_cast<std::int32_t>(random.below(3)) - 1);
    else edges.push_back(static_cast<std::int32_t>(random.below(1000)));
  }
  std::sort(edges.begin(), edges.end());
  return edges;
}

void check_bins(const Case& c, const Twin<float>& scores, int num_bins, Random& random) {
  const Twin<std::int32_t> edges("edges", make_edges(c, num_bins, scores, random));
  const Twin<std::int64_t> counts("counts", num_bins);
  CALL_BOTH(count_bins, c.threads,
            [&](Side side) { return CountBins{scores.on(side), c.num_slots(), edges.on(side), num_bins, counts.on(side)}; });
  counts.expect_same("count_bins");

  std::vector<std::int64_t> expected(static_cast<std::size_t>(num_bins), 0);
  for (std::int64_t slot = 0; slot < c.num_slots(); ++slot) {
    const std::int32_t key = number_key(bits_of(scores.host()[slot]));
    if (!is_number_key(key)) continue;
    const auto above = std::upper_bound(edges.host(), edges.host() + num_bins - 1, key);
    expected[static_cast<std::size_t>(above - edges.host())] += 1;
  }
  report::expect_same("count_bins", "counts one by one", counts.host(), expected.data(), expected.size(), sizeof expected[0]);
}

}  // namespace

void check_histogram(const Case& c, const Twin<float>& scores) {
  Random random(c.seed);
  const Twin<std::int32_t> keys("keys", kRangeKeys);
  CALL_BOTH(score_range, c.threads, [&](Side side) { return ScoreRange{scores.on(side), c.num_slots(), keys.on(side)}; });
  keys.expect_same("score_range");
  for (const int num_bins : {1, 2, 64, 1 + static_cast<int>(random.below(kMaxBins)), kMaxBins}) {
    if (!c.large || num_bins != 2) check_bins(c, scores, num_bins, random);
  }
}
