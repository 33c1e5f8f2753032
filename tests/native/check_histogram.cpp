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

void check_bins(const Case& c, const Twin<float>& scores, const Twin<std::uint8_t>& marks, int num_bins, Random& random) {
  const Twin<std::int32_t> edges("edges", make_edges(c, num_bins, scores, random));
  const Twin<std::int64_t> counts("counts", num_bins);
  const bool of_tier = num_bins % 4 != 0;
  const std::uint32_t tier = static_cast<std::uint32_t>(num_bins % 4);
  CALL_BOTH(count_bins, c.threads, [&](Side side) {
    return CountBins{scores.on(side), c.num_slots(), edges.on(side), num_bins, of_tier ? marks.on(side) : nullptr, tier,
                     counts.on(side)};
  });
  counts.expect_same("count_bins");

  std::vector<std::int64_t> expected(static_cast<std::size_t>(num_bins), 0);
  for (std::int64_t slot = 0; slot < c.num_slots(); ++slot) {
    const std::int32_t key = number_key(bits_of(scores.host()[slot]));
    if (!is_number_key(key) || (of_tier && (marks.host()[slot / 2] >> slot % 2 * 4 >> 2 & 3) != tier)) continue;
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
  std::vector<std::uint8_t> any(static_cast<std::size_t>(mark_bytes(c.num_slots())));
  Random marking(c.seed + 1);
  for (std::uint8_t& mark : any) mark = static_cast<std::uint8_t>(marking.next());
  const Twin<std::uint8_t> marks("marks", any);
  for (const int num_bins : {1, 2, 64, 1 + static_cast<int>(random.below(kMaxBins)), kMaxBins}) {
    if (!c.large || num_bins != 2) check_bins(c, scores, marks, num_bins, random);
  }
}
