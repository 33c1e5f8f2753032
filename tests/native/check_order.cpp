#include <algorithm>

#include "checks.h"

using namespace infobatch;

void check_order(const Case& c, const MarkedTable& plan, const Permutation& shuffle) {
  struct Part {
    std::int64_t start, count;
  };
  const std::int64_t kept = plan.num_kept();
  const Part begin{0, std::min<std::int64_t>(kept, 70000)};
  const Part beyond_end{kept / 3, c.large ? kept - kept / 3 + 3 : kept + 3};
  for (const Part& part : {begin, beyond_end}) {
    const Twin<std::int64_t> ids("ids", part.count);
    CALL_BOTH(order, c.threads, [&](Side side) {
      return Order{EpochOrder{c.shard, shuffle, plan.kept_of(plan.marks, side)}, nullptr, part.start, part.count, ids.on(side)};
    });
    ids.expect_same("order");
  }
}

void check_remaining(const Case& c, const MarkedTable& plan, const Permutation& shuffle, const Twin<std::uint8_t>& visited) {
  const auto epoch_on = [&](Side side) { return EpochOrder{c.shard, shuffle, plan.kept_of(visited, side)}; };
  const MarkedTable remaining(plan.num_kept());
  CALL_BOTH(mark_remaining, c.threads,
            [&](Side side) { return MarkRemaining{epoch_on(side), visited.on(side), remaining.marks.on(side)}; });
  remaining.marks.expect_same("mark_remaining");
  CALL_BOTH(index_bits, c.threads, [&](Side side) { return remaining.index(side); });
  if (!remaining.expect_same_directory("index_bits")) return;

  const std::int64_t left = remaining.num_kept(), start = left / 4;
  if (left == 0) return;
  const Twin<std::int64_t> ids("ids of what remains", left - start);
  // On the heap, where no kernel can read it: the contract says that it is the host's.
  const std::vector<BitIndex> still_to_visit{remaining.kept_of(remaining.marks, Side::kCpu),
                                             remaining.kept_of(remaining.marks, Side::kCuda)};
  CALL_BOTH(order, c.threads, [&](Side side) {
    return Order{epoch_on(side), &still_to_visit[static_cast<std::size_t>(side)], start, left - start, ids.on(side)};
  });
  ids.expect_same("order");
}
