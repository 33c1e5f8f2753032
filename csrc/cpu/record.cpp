// Record: losses go to their slots, weights come back. Look up: where samples stand and what their marks are.
#include "tile.h"

namespace infobatch::cpu {
namespace {

// The table is far larger than any cache, so lines are asked for this many items ahead: enough to keep the memory busy, few
// enough that none is evicted before its use.
constexpr int kPrefetchDistance = 32;

void count_bad(std::int64_t* faults, std::int64_t slot, std::int64_t id) {
  faults[slot == kNoSuchSample ? kOutOfRange : kForeign] += 1;
  faults[kLastBadIndex] = id;
}

}  // namespace

Status record(const Record& args, int) {
  std::int64_t slots[kTile];
  for (std::int64_t start = 0; start < args.count; start += kTile) {
    const int filled = static_cast<int>(std::min<std::int64_t>(kTile, args.count - start));
    locate_tile(args.shard, args.index + start, filled, slots);
    const auto prefetch = [&](int i) {
      if (i >= filled || slots[i] < 0) return;
      __builtin_prefetch(args.scores + slots[i], 1);
      __builtin_prefetch(args.marks + slots[i] / 2, 1);
    };
    for (int i = 0; i < kPrefetchDistance; ++i) prefetch(i);
    for (int i = 0; i < filled; ++i) {
      prefetch(i + kPrefetchDistance);
      const std::int64_t slot = slots[i];
      if (slot < 0) {
        count_bad(args.faults, slot, args.index[start + i]);
        args.weights[start + i] = 1.0f;
        continue;
      }
      args.weights[start + i] = args.weights_of_tier[tier_of_mark(mark_at(args.marks, static_cast<std::uint64_t>(slot)))];
      args.marks[slot / 2] |= static_cast<std::uint8_t>(kVisitedMark << (kMarkBits * (slot % 2)));
      const float score = args.new_scores[start + i];
      if (is_finite_bits(bits_of(score))) args.scores[slot] = score;
      else args.faults[kNonFinite] += 1;
    }
  }
  return Status::kOk;
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
