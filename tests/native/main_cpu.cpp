// The program for compilers: the CPU backend stands on both sides, in several parts and in one. Its last line is a digest of
// all that it left behind, which must be the same whoever compiled it.
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "compare.h"
#include "device.h"
#include "report.h"
#include "twin.h"

namespace {

std::vector<std::unique_ptr<std::byte[]>> arrays;

}  // namespace

namespace device {

void start(bool) {}

void* allocate(std::size_t bytes, std::size_t alignment, const char*) {
  arrays.emplace_back(new std::byte[bytes + alignment]);
  std::byte* const begin = arrays.back().get() + alignment;
  std::memset(begin, kPoison, bytes);
  return begin;
}

void release(void*) { arrays.pop_back(); }

void upload(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void download(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void finish(const char*) {}

void vary(std::uint64_t, std::int64_t) {}

long faults() { return 0; }

}  // namespace device

#define IN_ONE_PART(function, Arguments) \
  infobatch::Status infobatch::cuda::function(const Arguments& args, void*) { return cpu::function(args, 1); }

IN_ONE_PART(sum_scores, SumScores)
IN_ONE_PART(mean_threshold, MeanThreshold)
IN_ONE_PART(count_digits, DigitPass)
IN_ONE_PART(narrow_quantiles, DigitPass)
IN_ONE_PART(cut_by_importance, CutByImportance)
IN_ONE_PART(score_range, ScoreRange)
IN_ONE_PART(count_bins, CountBins)
IN_ONE_PART(set_tiers, SetTiers)
IN_ONE_PART(draw_plan, DrawPlan)
IN_ONE_PART(index_bits, IndexBits)
IN_ONE_PART(record, Record)
IN_ONE_PART(look_up, LookUp)
IN_ONE_PART(order, Order)
IN_ONE_PART(mark_remaining, MarkRemaining)

int main() {
  const bool same = compare({.largest = 300001, .every = 8, .threads = 3, .every_place = false, .random_rounds = 20});
  std::printf("digest %016llx\n", report::digest());
  return same ? 0 : 1;
}
