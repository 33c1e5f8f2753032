#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "checks.h"

using namespace infobatch;

namespace {

// Limbs may be split differently, so the integers that they stand for are compared.
void expect_same_sum(const Twin<std::int64_t>& sum) {
  const std::vector<std::int64_t> of_cuda = sum.from_device(kSumWords);
  const WideInteger cuda = normalise(of_cuda.data()), cpu = normalise(sum.host());
  report::expect_same("sum_scores", "digits of the sum", cuda.digit, cpu.digit, kLimbs, sizeof *cuda.digit);
  report::expect("sum_scores", "the sign of the sum", cuda.negative == cpu.negative);
  report::expect_same("sum_scores", "seen", &of_cuda[kLimbs], sum.host() + kLimbs, 1, sizeof(std::int64_t));
  bool has_room = true;
  for (int i = 0; i < kLimbs; ++i) has_room = has_room && std::llabs(of_cuda[i]) < std::int64_t{1} << 42;
  report::expect("sum_scores", "limbs leave room for 2^21 ranks", has_room);
}

// Of quantiles, as DigitPass takes them.
std::vector<std::uint64_t> fractions_of(int num_targets) {
  static constexpr double quantiles[kMaxThresholds][kMaxThresholds] = {{0.5}, {0.85, 0.2}, {0.999, 0.5, 0.001}};
  std::vector<std::uint64_t> fractions;
  for (int t = 0; t < num_targets; ++t) {
    fractions.push_back(static_cast<std::uint64_t>(std::ceil(quantiles[num_targets - 1][t] * 0x1p32)));
  }
  return fractions;
}

DigitPass digit_pass(const float* scores, std::int64_t num_slots, int pass, const std::vector<std::uint64_t>& fractions,
                     QuantileState* state, std::int64_t* counts, float* thresholds, bool alone) {
  DigitPass args{scores, num_slots, pass, static_cast<int>(fractions.size()), {}, state, counts, thresholds, alone, nullptr};
  std::copy(fractions.begin(), fractions.end(), args.fractions);
  return args;
}

Thresholds check_quantiles(const Case& c, const Twin<float>& scores, int num_targets, bool alone) {
  const Twin<QuantileState> state("state", 1);
  const Twin<std::int64_t> counts("counts", kDigitWords);
  const Twin<float> thresholds("thresholds", kMaxThresholds);
  const std::vector<std::uint64_t> fractions = fractions_of(num_targets);
  for (int pass = 0; pass < kDigitPasses; ++pass) {
    const auto arguments = [&](Side side) {
      return digit_pass(scores.on(side), c.num_slots(), pass, fractions, state.on(side), counts.on(side), thresholds.on(side),
                        alone);
    };
    CALL_BOTH(count_digits, c.threads, arguments);
    counts.expect_same("count_digits", kDigitWords - 1);  // without the word of scratch
    if (!alone) CALL_BOTH(narrow_quantiles, c.threads, arguments);
    state.expect_same(alone ? "count_digits" : "narrow_quantiles");
  }
  thresholds.expect_same(alone ? "count_digits" : "narrow_quantiles");
  return Thresholds(thresholds.host(), thresholds.host() + kMaxThresholds);
}

// A histogram of a few large counts, and ranks within it: first ones, last ones and any.
void check_random_narrowing(int pass, int round, Random& random) {
  const int num_targets = 1 + static_cast<int>(random.below(kMaxThresholds));
  std::vector<std::int64_t> histogram(kDigitWords, 0);
  for (std::int64_t& count : histogram) {
    if (round % 10 != 0 && random.one_in(4)) count = static_cast<std::int64_t>(random.next() >> (24 + random.below(40)));
  }
  QuantileState start{};
  for (int t = 0; t < kMaxThresholds; ++t) {
    std::int64_t total = 0;
    for (int bin = 0; bin < kDigitBins; ++bin) total += histogram[pass * kDigitCounts + t * kDigitBins + bin];
    start.seen += total;
    if (total == 0 || round % 7 == 1) continue;
    start.rank[t] = round % 7 == 0 ? total - 1 : static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(total)));
  }
  std::vector<std::uint64_t> fractions;
  for (int t = 0; t < num_targets; ++t) fractions.push_back(random.bits());
  const Twin<std::int64_t> counts("counts", histogram);
  const Twin<QuantileState> state("state", std::vector<QuantileState>{start});
  const Twin<float> thresholds("thresholds", kMaxThresholds);
  CALL_BOTH(narrow_quantiles, 1, [&](Side side) {
    return digit_pass(nullptr, 0, pass, fractions, state.on(side), counts.on(side), thresholds.on(side), false);
  });
  state.expect_same("narrow_quantiles");
  if (pass + 1 == kDigitPasses) thresholds.expect_same("narrow_quantiles");
}

void check_random_mean(Random& random) {
  std::vector<std::int64_t> words(kSumWords + 1, 0);
  const std::size_t places = random.below(kLimbs + 1);  // limbs above these are small
  for (std::size_t i = 0; i < kLimbs; ++i) {
    words[i] = static_cast<std::int64_t>(random.next()) >> (i < places ? random.below(64) : 62);
  }
  words[kLimbs] = static_cast<std::int64_t>(random.next() >> (24 + random.below(40)));
  const Twin<std::int64_t> sum("sum", words);
  const Twin<float> thresholds("thresholds", kMaxThresholds);
  CALL_BOTH(mean_threshold, 1, [&](Side side) { return MeanThreshold{sum.on(side), thresholds.on(side)}; });
  thresholds.expect_same("mean_threshold");
}

}  // namespace

Thresholds check_mean(const Twin<float>& scores, int threads) {
  const std::int64_t num_slots = scores.size();
  const Twin<std::int64_t> sum("sum", kSumWords + 1), sum_alone("sum", kSumWords + 1);
  const Twin<float> mean("thresholds", kMaxThresholds), mean_alone("thresholds", kMaxThresholds);
  CALL_BOTH(sum_scores, threads, [&](Side side) { return SumScores{scores.on(side), num_slots, sum.on(side), nullptr}; });
  expect_same_sum(sum);
  CALL_BOTH(mean_threshold, threads, [&](Side side) { return MeanThreshold{sum.on(side), mean.on(side)}; });
  mean.expect_same("mean_threshold");

  CALL_BOTH(sum_scores, threads,
            [&](Side side) { return SumScores{scores.on(side), num_slots, sum_alone.on(side), mean_alone.on(side)}; });
  expect_same_sum(sum_alone);
  mean_alone.expect_same("sum_scores");
  report::expect_same("sum_scores", "thresholds in one call", mean_alone.host(), mean.host(), kMaxThresholds, sizeof(float));
  return Thresholds(mean.host(), mean.host() + kMaxThresholds);
}

std::vector<Thresholds> check_statistics(const Case& c, const Twin<float>& scores) {
  std::vector<Thresholds> found{check_mean(scores, c.threads)};
  for (int num_targets = 1; num_targets <= kMaxThresholds; ++num_targets) {
    found.push_back(check_quantiles(c, scores, num_targets, false));
    const Thresholds alone = check_quantiles(c, scores, num_targets, true);
    report::expect_same("count_digits", "thresholds of a rank alone", alone.data(), found.back().data(), kMaxThresholds,
                        sizeof(float));
  }
  return found;
}

void check_random_statistics(int rounds) {
  Random random(17);
  for (int round = 0; round < rounds; ++round) {
    report::set_case("random histogram " + std::to_string(round));
    for (int pass = 0; pass < kDigitPasses; ++pass) check_random_narrowing(pass, round, random);
    report::set_case("random sum " + std::to_string(round));
    check_random_mean(random);
  }
}
