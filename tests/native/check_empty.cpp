#include "checks.h"

using namespace infobatch;

namespace {

void check_empty_statistics(int threads) {
  const Twin<std::int64_t> sum("sum", kSumWords + 1), counts("counts", kDigitWords);
  const Twin<float> mean("thresholds", kMaxThresholds), quantiles("thresholds", kMaxThresholds);
  const Twin<QuantileState> state("state", 1);
  CALL_BOTH(sum_scores, threads, [&](Side side) { return SumScores{nullptr, 0, sum.on(side), mean.on(side)}; });
  sum.expect_same("sum_scores", kSumWords);
  mean.expect_same("sum_scores");
  for (int pass = 0; pass < kDigitPasses; ++pass) {
    CALL_BOTH(count_digits, threads, [&](Side side) {
      return DigitPass{nullptr, 0, pass, 2, {9, 3}, state.on(side), counts.on(side), quantiles.on(side), true, nullptr};
    });
    counts.expect_same("count_digits", kDigitWords - 1);
    state.expect_same("count_digits");
  }
  quantiles.expect_same("count_digits");
}

void check_empty_histogram(int threads) {
  const Twin<std::int32_t> keys("keys", kRangeKeys), edges("edges", std::vector<std::int32_t>{-1, 5});
  const Twin<std::int64_t> counts("counts", 3);
  CALL_BOTH(score_range, threads, [&](Side side) { return ScoreRange{nullptr, 0, keys.on(side)}; });
  keys.expect_same("score_range");
  CALL_BOTH(count_bins, threads,
            [&](Side side) { return CountBins{nullptr, 0, edges.on(side), 3, nullptr, 0, counts.on(side)}; });
  counts.expect_same("count_bins");
}

void check_empty_plan(int threads) {
  const Twin<float> thresholds("thresholds", std::vector<float>{1, 0, -1});
  const Twin<Tiers> tiers = check_tiers({{kLaneRange, 3, 2, 1}}, threads);
  const MarkedTable plan(0), apart(0);
  CALL_BOTH(draw_plan, threads, [&](Side side) {
    return DrawPlan{nullptr, 0, 0, thresholds.on(side), tiers.on(side), 1, 2, nullptr, plan.marks.on(side), plan.index(side)};
  });
  plan.ones_before.expect_same("draw_plan");
  plan.counts.expect_same("draw_plan");
  CALL_BOTH(index_bits, threads, [&](Side side) { return apart.index(side); });
  apart.ones_before.expect_same("index_bits");
  apart.counts.expect_same("index_bits");
}

// A rank without samples: every id is another's, or nobody's.
void check_record_without_slots(int threads) {
  const Shard shard = make_shard(Place::kWholeSet, 5, 0), empty{shard.deal, 0, 0};
  const Twin<std::int64_t> index("index", std::vector<std::int64_t>{3, 0, 9}), slots("slots", 3);
  const Twin<std::int64_t> faults("faults", std::vector<std::int64_t>(kNumFaults, 0));
  const Twin<float> values("new_scores", std::vector<float>(3, 1.0f)), weights("weights", 3);
  const Twin<std::uint8_t> found("found", 3);
  const Twin<Tiers> tiers = check_tiers({{kLaneRange, 3, 2, 1}}, threads);
  CALL_BOTH(record, threads, [&](Side side) {
    return Record{.shard = empty,
                  .scores = nullptr,
                  .marks = nullptr,
                  .faults = faults.on(side),
                  .tiers = tiers.on(side),
                  .visits = true,
                  .share = 2,
                  .momentum = 0.5,
                  .index = index.on(side),
                  .new_scores = values.on(side),
                  .count = index.size(),
                  .weights = weights.on(side)};
  });
  weights.expect_same("record");
  CALL_BOTH(look_up, threads, [&](Side side) {
    return LookUp{empty, nullptr, faults.on(side), index.on(side), index.size(), slots.on(side), found.on(side)};
  });
  slots.expect_same("look_up");
  found.expect_same("look_up");
  faults.expect_same("look_up", kFaultCounts);
  report::expect("record", "all ids of an empty shard are bad",
                 faults.host()[kForeign] == 4 && faults.host()[kOutOfRange] == 2);
}

}  // namespace

void check_empty(int threads) {
  report::set_case("nothing at all");
  check_empty_statistics(threads);
  check_empty_histogram(threads);
  check_empty_plan(threads);
  check_record_without_slots(threads);
  CALL_BOTH(record, threads, [](Side) { return Record{}; });
  CALL_BOTH(look_up, threads, [](Side) { return LookUp{}; });
  CALL_BOTH(order, threads, [](Side) { return Order{}; });
  CALL_BOTH(mark_remaining, threads, [](Side) { return MarkRemaining{}; });
}
