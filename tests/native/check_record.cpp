#include <iterator>
#include <limits>
#include <set>

#include "checks.h"

using namespace infobatch;

namespace {

constexpr float kShare = 1.0f / 3;  // a product with it is rounded
constexpr double kMomenta[] = {0.0, 0.9, 0.0, 1.0 / 3, 0.0, 0x1p-30, 1e-40, 1e-320};

struct Batch {
  std::vector<std::int64_t> index;
  std::vector<float> scores;
  std::set<std::int64_t> bad;  // ids of no sample, or of another shard's
};

bool is_in(const Shard& shard, std::int64_t id) {
  if (id < 0 || static_cast<std::uint64_t>(id) >= shard.deal.size) return false;
  const std::int64_t slot = static_cast<std::int64_t>(permute(shard.deal, static_cast<std::uint64_t>(id))) - shard.first_slot;
  return slot >= 0 && slot < shard.num_slots;
}

std::int64_t make_id(const Shard& shard, std::uint64_t num_slots, Random& random) {
  const std::int64_t size = static_cast<std::int64_t>(shard.deal.size);
  switch (random.below(40)) {
    case 0:
      return -1 - static_cast<std::int64_t>(random.next() >> 1);
    case 1:
      return size + static_cast<std::int64_t>(random.below(1000));
    case 2:
      return static_cast<std::int64_t>(random.below(shard.deal.size));  // foreign, most often
    case 3:
      return std::numeric_limits<std::int64_t>::min() + static_cast<std::int64_t>(random.below(2));
    default:
      return static_cast<std::int64_t>(
          unpermute(shard.deal, static_cast<std::uint64_t>(shard.first_slot) + random.below(num_slots)));
  }
}

float make_new_score(std::int64_t place, Random& random) {
  switch (random.below(30)) {
    case 0:
      return std::numeric_limits<float>::infinity();
    case 1:
      return -std::numeric_limits<float>::infinity();
    case 2:
      return float_of(random.bits() | 0x7F800001u);  // a NaN of either sign
    case 3:
      return float_of(0xFFC00000u + static_cast<std::uint32_t>(place));  // what the CUDA backend claims a slot with
    case 4:
      return std::numeric_limits<float>::lowest();
    default:
      return make_score(static_cast<Kind>(random.below(kNumKinds)), place, random);
  }
}

Batch make_batch(const Shard& shard, std::int64_t count, bool duplicates, Random& random) {
  Batch batch;
  const std::uint64_t num_slots =
      static_cast<std::uint64_t>(duplicates ? std::min<std::int64_t>(shard.num_slots, 3) : shard.num_slots);
  for (std::int64_t place = 0; place < count; ++place) {
    batch.index.push_back(make_id(shard, num_slots, random));
    batch.scores.push_back(make_new_score(place, random));
    if (!is_in(shard, batch.index.back())) batch.bad.insert(batch.index.back());
  }
  return batch;
}

// Which one of several ids is named is left open.
void expect_named(const char* function, const Twin<std::int64_t>& faults, Fault fault, const std::set<std::int64_t>& ids,
                  std::int64_t named_before) {
  const std::int64_t named[] = {faults.host()[fault], faults.from_device(kNumFaults)[fault]};
  for (const std::int64_t id : named) {
    report::expect(function, "names a faulty id", ids.empty() ? id == named_before : ids.count(id) == 1);
  }
}

// Those samples of a batch that the plan does not keep.
std::set<std::int64_t> unkept_of(const Shard& shard, const std::uint8_t* marks, const Batch& batch) {
  std::set<std::int64_t> unkept;
  for (const std::int64_t id : batch.index) {
    if (!is_in(shard, id)) continue;
    const std::uint64_t slot =
        permute(shard.deal, static_cast<std::uint64_t>(id)) - static_cast<std::uint64_t>(shard.first_slot);
    if ((mark_at(marks, slot) & kKeptMark) == 0) unkept.insert(id);
  }
  return unkept;
}

void check_look_up(const Case& c, const Twin<std::uint8_t>& marks, const Twin<std::int64_t>& index,
                   const std::set<std::int64_t>& bad) {
  const Twin<std::int64_t> faults("faults", std::vector<std::int64_t>(kNumFaults, -5));
  const Twin<std::int64_t> slots("slots", index.size());
  const Twin<std::uint8_t> found("found", index.size());
  CALL_BOTH(look_up, c.threads, [&](Side side) {
    return LookUp{c.shard, marks.on(side), faults.on(side), index.on(side), index.size(), slots.on(side), found.on(side)};
  });
  slots.expect_same("look_up");
  found.expect_same("look_up");
  faults.expect_same("look_up", kFaultCounts);
  expect_named("look_up", faults, kBadId, bad, -5);
}

Record record_of(const Shard& shard, const Twin<float>& scores, const Twin<std::uint8_t>& marks,
                 const Twin<std::int64_t>& faults, const Twin<Tiers>& tiers, const Twin<std::int64_t>& index,
                 const Twin<float>& new_scores, const Twin<float>& weights, double momentum, bool visits, Side side) {
  return {.shard = shard,
          .scores = scores.on(side),
          .marks = marks.on(side),
          .faults = faults.on(side),
          .tiers = tiers.on(side),
          .visits = visits,
          .share = kShare,
          .momentum = momentum,
          .index = index.on(side),
          .new_scores = new_scores.on(side),
          .count = index.size(),
          .weights = weights.on(side)};
}

}  // namespace

void check_record(const Case& c, const Twin<float>& scores, const Twin<std::uint8_t>& marks, const Twin<Tiers>& tiers,
                  std::int64_t count, bool duplicates, Random& random) {
  const Batch batch = make_batch(c.shard, count, duplicates, random);
  const Twin<float> table(scores);
  const Twin<std::int64_t> faults("faults", std::vector<std::int64_t>{1000, 1001, 1002, 1003, 1004, 1005});
  const Twin<std::int64_t> index("index", batch.index, sizeof(std::int64_t));
  const Twin<float> new_scores("new_scores", batch.scores, sizeof(float));
  const Twin<float> weights("weights", count, sizeof(float));
  const std::uint64_t chosen = random.below(4 * std::size(kMomenta));
  const double momentum = kMomenta[chosen / 4];
  const bool visits = chosen % 4 != 0;
  const std::set<std::int64_t> unkept = visits ? unkept_of(c.shard, marks.host(), batch) : std::set<std::int64_t>();
  CALL_BOTH(record, c.threads, [&](Side side) {
    return record_of(c.shard, table, marks, faults, tiers, index, new_scores, weights, momentum, visits, side);
  });
  table.expect_same("record");
  marks.expect_same("record");
  weights.expect_same("record");
  faults.expect_same("record", kFaultCounts);
  expect_named("record", faults, kBadId, batch.bad, 1004);
  expect_named("record", faults, kUnkeptId, unkept, 1005);
  check_look_up(c, marks, index, batch.bad);
}

void check_large_record(std::int64_t count, std::int64_t num_slots, double momentum, int threads) {
  report::set_case("record of " + std::to_string(count) + " among " + std::to_string(num_slots));
  Random random(static_cast<std::uint64_t>(count));
  const Shard shard = make_shard(Place::kWholeSet, num_slots, 5);
  const Twin<float> table("scores", make_scores(Kind::kWithUnseen, num_slots, random));
  std::vector<std::uint8_t> unvisited(static_cast<std::size_t>(mark_bytes(num_slots)));
  for (std::uint8_t& byte : unvisited) byte = static_cast<std::uint8_t>(random.next() & 0xDD);
  std::vector<std::int64_t> ids;
  std::vector<float> values;
  for (std::int64_t place = 0; place < count; ++place) {
    const bool is_bad = place % 1000 == 999;
    ids.push_back(static_cast<std::int64_t>(is_bad ? random.next() : random.below(static_cast<std::uint64_t>(num_slots))));
    const bool is_finite = place % 17 != 3;
    values.push_back(is_finite ? make_score(Kind::kAllBits, place, random) : float_of(random.bits() | 0x7F800000u));
  }
  const Twin<std::uint8_t> marks("marks", unvisited);
  const Twin<std::int64_t> faults("faults", std::vector<std::int64_t>(kNumFaults, 0)), index("index", ids);
  const Twin<float> new_scores("new_scores", values), weights("weights", count);
  const Twin<Tiers> tiers = check_tiers({{kLaneRange, 49152, 21845, 1}}, threads);
  CALL_BOTH(record, threads, [&](Side side) {
    return record_of(shard, table, marks, faults, tiers, index, new_scores, weights, momentum, true, side);
  });
  table.expect_same("record");
  marks.expect_same("record");
  weights.expect_same("record");
  faults.expect_same("record", kFaultCounts);
}
