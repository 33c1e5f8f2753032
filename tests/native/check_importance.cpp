#include <cmath>

#include "checks.h"

using namespace infobatch;

namespace {

// Of the middles of bins, or of the probability of being wrong that such a loss stands for.
std::vector<double> make_norms(bool of_losses) {
  std::vector<double> norms;
  for (int digit = kFirstPositive; digit < kEndOfFinite; ++digit) {
    const double low = edge_of_digit(digit), high = digit + 1 < kEndOfFinite ? edge_of_digit(digit + 1) : 0x1p128;
    norms.push_back(of_losses ? -std::expm1(-(low + high) / 2) : (low + high) / 2);
  }
  return norms;
}

struct Wish {
  double kept, least;
  bool of_losses;
};
constexpr Wish kWishes[] = {{0.6, 0.1, true}, {0.3, 0.01, false}, {0.9, 0.5, true}, {0.15, 1e-6, false}, {1.0, 0.1, true}};

Thresholds check_cut(const Twin<std::int64_t>& counts, const Wish& wish, int threads) {
  const Twin<double> norms("norms", make_norms(wish.of_losses));
  const Twin<float> thresholds("thresholds", kMaxThresholds);
  const Twin<Tiers> tiers("tiers", 1);
  const Twin<std::int64_t> numbers("numbers", 2);
  CALL_BOTH(cut_by_importance, threads, [&](Side side) {
    return CutByImportance{
        counts.on(side),       norms.on(side),      static_cast<std::uint64_t>(std::ceil(wish.kept * 0x1p32)),
        cutoff_of(wish.least), thresholds.on(side), tiers.on(side),
        numbers.on(side)};
  });
  thresholds.expect_same("cut_by_importance");
  tiers.expect_same("cut_by_importance");
  numbers.expect_same("cut_by_importance");
  return Thresholds(thresholds.host(), thresholds.host() + kMaxThresholds);
}

}  // namespace

Thresholds check_importance(const Case& c, const Twin<float>& scores, const Twin<std::uint8_t>& protect) {
  const Wish& wish = kWishes[c.seed % std::size(kWishes)];
  Thresholds found;
  for (const bool protects : {true, false}) {
    const Twin<std::int64_t> counts("counts", kDigitWords);
    CALL_BOTH(count_digits, c.threads, [&](Side side) {
      return DigitPass{scores.on(side), c.num_slots(),   0,       1,     {},
                       nullptr,         counts.on(side), nullptr, false, protects ? protect.on(side) : nullptr};
    });
    counts.expect_same("count_digits", kDigitBins);
    found = check_cut(counts, wish, c.threads);

    std::vector<std::int64_t> expected(kDigitBins, 0);
    for (std::int64_t slot = 0; slot < c.num_slots(); ++slot) {
      const int digit = static_cast<int>(digit_of(ordered_key(bits_of(scores.host()[slot])), 0));
      const bool apart = protects && (protect.host()[slot / 8] >> slot % 8 & 1) != 0;
      if (digit >= kFirstFinite && digit < kEndOfSeen) expected[static_cast<std::size_t>(apart ? kProtectedDigit : digit)] += 1;
    }
    report::expect_same("count_digits", "counts one by one", counts.host(), expected.data(), expected.size(),
                        sizeof expected[0]);
  }
  return found;
}

// Histograms of many ranks, in which any bins are occupied.
void check_random_importance(int rounds) {
  Random random(23);
  for (int round = 0; round < rounds; ++round) {
    report::set_case("random bins " + std::to_string(round));
    std::vector<std::int64_t> histogram(kDigitWords, 0);
    const std::uint64_t sparse = 1 + random.below(200);
    for (int digit = kFirstFinite; digit < kEndOfSeen; ++digit) {
      if (random.one_in(sparse))
        histogram[static_cast<std::size_t>(digit)] = static_cast<std::int64_t>(random.next() >> (34 + random.below(30)));
    }
    const Twin<std::int64_t> counts("counts", histogram);
    Wish wish{random.uniform(), 0.0, random.one_in(2)};
    wish.least = wish.kept * random.uniform();
    check_cut(counts, wish, 1);
  }
}
