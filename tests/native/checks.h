// The checks: both backends over the same inputs, bit for bit.
#pragma once

#include "inputs.h"
#include "twin.h"

// Marks, and their directory.
struct MarkedTable {
  std::int64_t num_marks;
  Twin<std::uint8_t> marks;
  Twin<std::int64_t> ones_before;
  Twin<std::uint32_t> hints;
  Twin<std::int64_t> counts;
  Twin<std::int64_t> scratch;

  explicit MarkedTable(std::int64_t size)
      : num_marks(size),
        marks("marks", infobatch::mark_bytes(size)),
        ones_before("ones_before", infobatch::num_blocks(size) + 1),
        hints("hints", infobatch::num_blocks(size) + 1),
        counts("counts", infobatch::kIndexCounts),
        scratch("scratch", infobatch::kIndexScratch) {}

  infobatch::IndexBits index(Side side) const { return index_of(marks, side); }
  // The directory of marks that are kept elsewhere.
  infobatch::IndexBits index_of(const Twin<std::uint8_t>& others, Side side) const {
    return {words_of(others, side), num_marks,       ones_before.on(side),
            hints.on(side),         counts.on(side), side == Side::kCpu ? nullptr : scratch.on(side)};
  }
  infobatch::BitIndex kept_of(const Twin<std::uint8_t>& others, Side side) const {
    return {words_of(others, side), ones_before.on(side), hints.on(side), infobatch::num_blocks(num_marks)};
  }
  std::int64_t num_kept() const { return ones_before.host()[infobatch::num_blocks(num_marks)]; }

  // Whoever goes by a directory that is not sound leaves its arrays.
  bool expect_same_directory(const char* function) const {
    const std::int64_t num_hints = num_marks == 0 ? 0 : (num_kept() + infobatch::kHintStride - 1) / infobatch::kHintStride + 1;
    const bool same_counts = counts.expect_same(function), same_hints = hints.expect_same(function, num_hints);
    return ones_before.expect_same(function) && same_counts && same_hints;
  }

 private:
  static const std::uint64_t* words_of(const Twin<std::uint8_t>& marks, Side side) {
    return reinterpret_cast<const std::uint64_t*>(marks.on(side));
  }
};

// The sum and its mean. Returns the thresholds.
Thresholds check_mean(const Twin<float>& scores, int threads);
// That and quantiles. Returns all thresholds that were found.
std::vector<Thresholds> check_statistics(const Case&, const Twin<float>& scores);
// Sums that runs could have, and histograms of several ranks, at random.
void check_random_statistics(int rounds);

// Tiers of importance sampling, and histograms of several ranks at random. Returns the thresholds that were found.
Thresholds check_importance(const Case&, const Twin<float>& scores, const Twin<std::uint8_t>& protect);
void check_random_importance(int rounds);

// The range of the scores, and how many are in each of some bins.
void check_histogram(const Case&, const Twin<float>& scores);

// A plan's tiers, on both sides.
Twin<infobatch::Tiers> check_tiers(const infobatch::Cutoffs&, int threads);
// Plans under these thresholds and some others, and all that follows from each.
void check_plans(const Case&, const Twin<float>& scores, std::vector<Thresholds>, const Twin<std::uint8_t>& protect);
// A table of which each thread has a lot, and whose second half fills the accumulators that the first has made a kernel choose.
void check_long_table(std::int64_t num_slots, int threads);

// Records a batch of `count` and looks it up again. The marks come from a plan; those of the batch are visited then.
void check_record(const Case&, const Twin<float>& scores, const Twin<std::uint8_t>& marks, const Twin<infobatch::Tiers>& tiers,
                  std::int64_t count, bool duplicates, Random&);
// More claims in a call than one launch takes.
void check_large_record(std::int64_t count, std::int64_t num_slots, double momentum, int threads);

void check_order(const Case&, const MarkedTable& plan, const infobatch::Permutation& shuffle);
// What remains of the order when the samples with a visited mark are left out.
void check_remaining(const Case&, const MarkedTable& plan, const infobatch::Permutation& shuffle,
                     const Twin<std::uint8_t>& visited);

// Shards and calls without anything in them.
void check_empty(int threads);
