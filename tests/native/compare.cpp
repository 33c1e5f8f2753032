#include "compare.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>

#include "checks.h"

namespace {

using Clock = std::chrono::steady_clock;

// Around rows of 8, warps of 32 and blocks of 128; tiles of each kernel; and many blocks of threads.
constexpr std::int64_t kSizes[] = {1, 7, 8, 31, 32, 33, 127, 128, 129, 1000, 5001, 300001, 5000003};
constexpr std::int64_t kLarge = 10000, kHuge = 1000000;

void check_table(const Extent& extent, std::int64_t num_slots, Kind kind, Place place) {
  const std::uint64_t seed = extent.seed * 31 + static_cast<std::uint64_t>(kind);
  const bool large = num_slots > kLarge;
  const int parts[] = {1, 2, 3, extent.threads};
  const int threads = std::min(extent.threads, parts[(seed + static_cast<std::uint64_t>(place)) % 4]);
  const Case c{make_shard(place, num_slots, seed),      kind, seed, large ? extent.threads : threads,
               large ? 2 * extent.every : extent.every, large};
  report::set_case(std::string(name_of(kind)) + ", n = " + std::to_string(num_slots) + ", place " +
                   std::to_string(static_cast<int>(place)) + ", seed " + std::to_string(extent.seed));
  device::vary(seed * kNumPlaces + static_cast<std::uint64_t>(place), num_slots);
  Random random(seed + static_cast<std::uint64_t>(num_slots));
  const Twin<float> scores("scores", make_scores(kind, num_slots, random));
  check_histogram(c, scores);
  std::vector<Thresholds> thresholds = check_statistics(c, scores);
  constexpr float infinity = std::numeric_limits<float>::infinity();
  thresholds.insert(thresholds.end(), {{infinity, -infinity, -infinity},
                                       {-infinity, -infinity, -infinity},
                                       {0.0f, -infinity, -infinity},
                                       {1.0f, -0.0f, -1e-40f}});
  Random protecting(c.seed);
  const Twin<std::uint8_t> protect("protect", protected_bits(num_slots, protecting));
  thresholds.push_back(check_importance(c, scores, protect));
  check_plans(c, scores, thresholds, protect);
}

// Whether this table stands in this place too. Large ones take turns, as what differs between places is the arithmetic of a
// slot.
bool takes_part(const Extent& extent, std::int64_t num_slots, int kind, int place) {
  if (num_slots > kHuge) return place == 0;
  if (num_slots <= kLarge && extent.every_place) return true;
  return (static_cast<std::uint64_t>(num_slots + place + kind) + extent.seed) % kNumPlaces == 0;
}

}  // namespace

bool compare(const Extent& extent) {
  const Clock::time_point begin = Clock::now();
  device::vary(extent.seed, 0);
  check_empty(extent.threads);
  check_random_statistics(extent.random_rounds);
  check_random_importance(extent.random_rounds);
  for (const std::int64_t num_slots : kSizes) {
    if (num_slots < extent.smallest || num_slots > extent.largest) continue;
    for (int kind = 0; kind < kNumKinds; ++kind) {
      for (int place = 0; place < kNumPlaces; ++place) {
        if (!takes_part(extent, num_slots, kind, place)) continue;
        check_table(extent, num_slots, static_cast<Kind>(kind), static_cast<Place>(place));
      }
    }
    std::printf("n = %lld: after %.1f s\n", static_cast<long long>(num_slots),
                std::chrono::duration<double>(Clock::now() - begin).count());
    std::fflush(stdout);
  }
  if (extent.large_records) {
    constexpr std::int64_t claims = std::int64_t{1} << 22;  // of a launch
    device::vary(extent.seed, claims);
    check_large_record(claims + 70000, 37, 0.75, extent.threads);
    check_large_record(2 * claims + 1, 100003, 0.0, extent.threads);
  }
  if (extent.long_table > 0) {
    device::vary(extent.seed, extent.long_table);
    check_long_table(extent.long_table, extent.threads);
  }
  return report::summary();
}
