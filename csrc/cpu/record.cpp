// Record: losses go to their slots, weights come back. Look up: where samples stand and what their marks are.
#include "subnormals.h"
#include "tile.h"

namespace infobatch::cpu {
namespace {

// The table is far larger than any cache, so lines are asked for this many items ahead: enough to keep the memory busy, few
// enough that none is evicted before its use.
constexpr int kPrefetchDistance = 16;

void count_bad(std::int64_t* faults, std::int64_t slot, std::int64_t id) {
  faults[slot == kNoSuchSample ? kOutOfRange : kForeign] += 1;
  faults[kBadId] = id;
}

void count_unkept(std::int64_t* faults, std::int64_t id) {
  faults[kUnkept] += 1;
  faults[kUnkeptId] = id;
}

// Into the memory of the weights, which come last. All of the call, as the scores from before it are what counts.
[[gnu::noinline]] void blend_all(const Record& args) {
  std::int64_t slots[kTile];
  for (std::int64_t start = 0; start < args.count; start += kTile) {
    const int filled = static_cast<int>(std::min<std::int64_t>(kTile, args.count - start));
    locate_tile(args.shard, args.index + start, filled, slots);
    for (int i = 0; i < filled; ++i) {
      if (slots[i] >= 0) __builtin_prefetch(args.scores + slots[i], 1);
    }
    for (int i = 0; i < filled; ++i) {
      if (slots[i] >= 0) args.weights[start + i] = blend(args.momentum, args.scores[slots[i]], args.new_scores[start + i]);
    }
  }
}

// kVisits: args.visits, which would cost each sample a few instructions.
template <bool kVisits>
Status store_all(const Record& args) {
  float* const scores = args.scores;
  std::uint8_t* const marks = args.marks;
  float* const weights = args.weights;
  const float* new_scores = args.new_scores;
  if (blends(args.momentum)) {
    const WithSubnormals as_they_are;
    blend_all(args);
    new_scores = weights;
  }
  float weight_of_mark[1 << kMarkBits];
  for (std::uint32_t mark = 0; mark < 1u << kMarkBits; ++mark) {
    weight_of_mark[mark] = args.tiers->weights[tier_of_mark(mark)] * args.share;
  }
  std::int64_t slots[kTile + kPrefetchDistance];
  const auto prefetch = [&](int i) {
    const std::int64_t slot = std::max<std::int64_t>(slots[i], 0);
    __builtin_prefetch(scores + slot, 1);
    __builtin_prefetch(marks + slot / 2, 1);
  };
  for (std::int64_t start = 0; start < args.count; start += kTile) {
    const int filled = static_cast<int>(std::min<std::int64_t>(kTile, args.count - start));
    locate_tile(args.shard, args.index + start, filled, slots);
    std::fill(slots + filled, slots + filled + kPrefetchDistance, 0);
    for (int i = 0; i < kPrefetchDistance; ++i) prefetch(i);
    for (int i = 0; i < filled; ++i) {
      prefetch(i + kPrefetchDistance);
      const std::int64_t slot = slots[i];
      if (slot < 0) {
        count_bad(args.faults, slot, args.index[start + i]);
        weights[start + i] = args.share;
        continue;
      }
      const float score = new_scores[start + i];
      std::uint8_t& pair = marks[slot / 2];
      const int shift = kMarkBits * static_cast<int>(slot % 2);
      const std::uint32_t mark = (pair >> shift) & 0xFu;
      weights[start + i] = weight_of_mark[mark];
      if constexpr (kVisits) {
        pair |= static_cast<std::uint8_t>(kVisitedMark << shift);
        if ((mark & kKeptMark) == 0) count_unkept(args.faults, args.index[start + i]);
      }
      if (is_finite_bits(bits_of(score))) scores[slot] = score;
      else args.faults[kNonFinite] += 1;
    }
  }
  return Status::kOk;
}

}  // namespace

Status record(const Record& args, int) {
  if (args.count == 0) return Status::kOk;
  return args.visits ? store_all<true>(args) : store_all<false>(args);
}

Status look_up(const LookUp& args, int) {
  for (std::int64_t start = 0; start < args.count; start += kTile) {
    const int filled = static_cast<int>(std::min<std::int64_t>(kTile, args.count - start));
    locate_tile(args.shard, args.index + start, filled, args.slots + start);
    for (std::int64_t i = start; i < start + filled; ++i) {
      const std::int64_t slot = args.slots[i];
      if (slot < 0) {
        count_bad(args.faults, slot, args.index[i]);
        args.slots[i] = -1;
        args.found[i] = 0;
      } else {
        args.found[i] = static_cast<std::uint8_t>(mark_at(args.marks, static_cast<std::uint64_t>(slot)));
      }
    }
  }
  return Status::kOk;
}

}  // namespace infobatch::cpu
