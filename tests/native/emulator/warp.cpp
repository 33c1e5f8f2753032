// Collective calls of a warp: the last lane to come answers for all.
#include "settings.h"
#include "threads.h"

namespace emulator {
namespace {

// Of the lanes that take part.
struct Totals {
  unsigned ballot = 0;
  std::uint64_t sum = 0, largest = 0;
};

Totals totals_of(const Warp& warp) {
  Totals totals;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(warp.lanes >> lane & 1)) continue;
    const std::uint64_t value = warp.values[lane];
    totals.ballot |= (value != 0 ? 1u : 0u) << lane;
    totals.sum += value;
    totals.largest = value > totals.largest ? value : totals.largest;
  }
  return totals;
}

// The lane whose value this one gets. Where the step leads out of the warp, its own.
unsigned source_of(const Warp& warp, unsigned lane) {
  const unsigned operand = warp.operands[lane];
  unsigned from = lane;
  if (warp.kind == Collective::kShuffle) from = operand % 32;
  if (warp.kind == Collective::kShuffleXor) from = lane ^ operand;
  if (warp.kind == Collective::kShuffleDown) from = lane + operand;
  if (warp.kind == Collective::kShuffleUp) from = lane - operand;
  return from < 32 ? from : lane;
}

std::uint64_t answer(const Warp& warp, const Totals& totals, unsigned lane) {
  switch (warp.kind) {
    case Collective::kAll:
      return totals.ballot == warp.lanes;
    case Collective::kAny:
      return totals.ballot != 0;
    case Collective::kBallot:
      return totals.ballot;
    case Collective::kAdd:
      return totals.sum;
    case Collective::kMax:
      return totals.largest;
    default:
      break;
  }
  const unsigned from = source_of(warp, lane);
  if (!(warp.lanes >> from & 1)) error("line %u: lane %u reads lane %u, which takes no part", warp.place.line(), lane, from);
  return warp.values[from];
}

void check_arrival(const Warp& warp, Collective kind, unsigned lanes, unsigned lane, Place place) {
  if (!(lanes >> lane & 1)) error("line %u: a lane calls for others without itself", place.line());
  if (warp.arrived == 0) return;
  if (warp.kind != kind || warp.lanes != lanes || warp.place.line() != place.line()) {
    error("lanes of a warp are in different collective calls: lines %u and %u", warp.place.line(), place.line());
  }
  if (warp.arrived >> lane & 1) error("line %u: a lane came twice", place.line());
}

}  // namespace

std::uint64_t collective(Collective kind, unsigned lanes, std::uint64_t value, unsigned operand, Place place) {
  Thread& self = *current_thread();
  Warp& warp = self.warp();
  const unsigned lane = self.index % 32;
  check_arrival(warp, kind, lanes, lane, place);
  if (warp.arrived == 0) warp.kind = kind, warp.lanes = lanes, warp.place = place;
  warp.arrived |= 1u << lane;
  warp.values[lane] = value, warp.operands[lane] = operand;
  if (warp.arrived != lanes) {
    wait_as(State::kInCollective, place);
    return self.result;
  }
  const Totals totals = totals_of(warp);
  for (unsigned i = 0; i < 32; ++i) {
    if (!(lanes >> i & 1)) continue;
    Thread& thread = self.block->threads[self.index - lane + i];
    thread.result = answer(warp, totals, i);
    if (&thread != &self) wake(thread);
  }
  warp.arrived = 0;
  if (kind == Collective::kSync && lanes == ~0u) ++warp.step;
  if (settings.switch_every != 0 && draw_below(2) == 0) take_turns();  // who came last is not first to go on
  return self.result;
}

}  // namespace emulator
