#include <algorithm>
#include <cmath>
#include <limits>

#include "checks.h"

using namespace infobatch;

namespace {

Cutoffs cutoffs_of(int variant) {
  if (variant % 3 == 1) return {{kLaneRange, cutoff_of(0.25), cutoff_of(0.75), kLaneRange}};
  return {{kLaneRange, cutoff_of(0.5), cutoff_of(0.25), cutoff_of(1e-6)}};
}

// What follows from a plan: orders, records and what remains of orders after them.
void check_epoch(const Case& c, const Twin<float>& scores, const MarkedTable& plan, const Twin<Tiers>& tiers, int variant,
                 Random& random) {
  const std::uint64_t kept = static_cast<std::uint64_t>(plan.num_kept());
  if (kept == 0) return;
  const Permutation shuffle = variant % 4 == 3
                                  ? identity_permutation(kept)
                                  : make_permutation(kept, c.seed, Purpose::kShuffle, static_cast<std::uint32_t>(variant), 2);
  check_order(c, plan, shuffle);
  // The CUDA backend takes up to 64 in one block, more in a cluster; without clusters up to 1024 in one block.
  const std::int64_t counts[] = {std::min<std::int64_t>(c.num_slots(), 700) + 1, 1024,
                                 1025 + static_cast<std::int64_t>(random.below(3000))};
  for (int batch = 0; batch < 3; ++batch) {
    const bool duplicates = batch == 2 && variant % 2 == 1;
    const Twin<std::uint8_t> visited(plan.marks);
    check_record(c, scores, visited, tiers, counts[batch], duplicates, random);
    if (batch != 1 || variant % 2 == 0) check_remaining(c, plan, shuffle, visited);
  }
}

// Returns whether the backends agree.
bool check_draw(const Case& c, const Twin<float>& scores, const Thresholds& wanted, const Twin<std::uint8_t>* protect,
                const Twin<Tiers>& tiers, int variant, const MarkedTable& plan) {
  const Twin<float> thresholds("thresholds", wanted);
  CALL_BOTH(draw_plan, c.threads, [&](Side side) {
    return DrawPlan{.scores = scores.on(side),
                    .first_slot = c.shard.first_slot,
                    .num_slots = c.num_slots(),
                    .thresholds = thresholds.on(side),
                    .tiers = tiers.on(side),
                    .seed = c.seed * 77 + static_cast<std::uint64_t>(variant),
                    .epoch = static_cast<std::uint32_t>(variant) * 1000003u,
                    .protect = protect ? protect->on(side) : nullptr,
                    .marks = plan.marks.on(side),
                    .index = plan.index(side)};
  });
  const bool same_marks = plan.marks.expect_same("draw_plan");
  return plan.expect_same_directory("draw_plan") && same_marks;
}

void check_plan(const Case& c, const Twin<float>& scores, const Thresholds& thresholds, const Twin<std::uint8_t>* protect,
                int variant, Random& random) {
  const MarkedTable plan(c.num_slots()), apart(c.num_slots());
  const Twin<Tiers> tiers = check_tiers(cutoffs_of(variant), c.threads);
  if (!check_draw(c, scores, thresholds, protect, tiers, variant, plan)) return;
  CALL_BOTH(index_bits, c.threads, [&](Side side) { return apart.index_of(plan.marks, side); });
  apart.expect_same_directory("index_bits");
  report::expect_same("index_bits", "ones_before of the plan", apart.ones_before.host(), plan.ones_before.host(),
                      static_cast<std::size_t>(plan.ones_before.size()), sizeof(std::int64_t));
  report::expect_same("index_bits", "counts of the plan", apart.counts.host(), plan.counts.host(), kIndexCounts,
                      sizeof(std::int64_t));
  check_epoch(c, scores, plan, tiers, variant, random);
}

}  // namespace

Twin<Tiers> check_tiers(const Cutoffs& cutoffs, int threads) {
  Twin<Tiers> tiers("tiers", 1);
  CALL_BOTH(set_tiers, threads, [&](Side side) { return SetTiers{cutoffs, 1.0, tiers.on(side)}; });
  tiers.expect_same("set_tiers");
  return tiers;
}

void check_plans(const Case& c, const Twin<float>& scores, std::vector<Thresholds> thresholds,
                 const Twin<std::uint8_t>& protect) {
  Random random(c.seed);
  for (int variant = 0; variant < 2 * static_cast<int>(thresholds.size()); ++variant) {
    if ((static_cast<std::uint64_t>(variant) + c.seed) % static_cast<std::uint64_t>(c.every) != 0) continue;
    check_plan(c, scores, thresholds[static_cast<std::size_t>(variant / 2)], variant % 2 == 1 ? &protect : nullptr, variant,
               random);
  }
}

void check_long_table(std::int64_t num_slots, int threads) {
  report::set_case("a long table of " + std::to_string(num_slots));
  std::vector<float> halves(static_cast<std::size_t>(num_slots), 1.0f);
  std::fill(halves.begin() + num_slots / 2, halves.end(), std::nextafter(16.0f, 0.0f));
  const Twin<float> scores("scores", halves);
  const Case c{make_shard(Place::kWholeSet, num_slots, 1), Kind::kExponential, 1, threads, 1, true};
  check_draw(c, scores, check_mean(scores, threads), nullptr, check_tiers(cutoffs_of(0), threads), 0, MarkedTable(num_slots));
}
