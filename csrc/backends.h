// The contract of both backends: every function exists as infobatch::cpu::f(args, threads) and as
// infobatch::cuda::f(args, stream), and both leave the same bits behind (limbs of a sum may be split differently).
//
// All pointers are to memory of the backend's device unless a comment says otherwise, owned by the caller and distinct from
// each other. No function allocates, waits for the device, throws, or touches memory outside the arrays described here; CUDA
// ones only launch on `stream`. Shapes stand in brackets, n is the number of slots. Machines are little-endian.
#pragma once

#include <cstddef>

#include "core/blend.h"
#include "core/exact_sum.h"
#include "core/histogram.h"
#include "core/importance.h"
#include "core/marks.h"
#include "core/permutation.h"
#include "core/quantile.h"
#include "core/select.h"
#include "core/tiers.h"

namespace infobatch {

enum class Status { kOk = 0, kLaunchFailed = 1 };

// The slots [first_slot, first_slot + num_slots) of a data set of deal.size samples. slot = permute(deal, sample id).
// first_slot is a multiple of 8, so that no Philox block is shared by two shards.
struct Shard {
  Permutation deal;
  std::int64_t first_slot;
  std::int64_t num_slots;
};

// Marks are padded to whole blocks of 128, so that a thread may work on words.
constexpr std::int64_t num_blocks(std::int64_t num_marks) { return (num_marks + kBlockMarks - 1) / kBlockMarks; }
constexpr std::int64_t mark_bytes(std::int64_t num_marks) { return num_blocks(num_marks) * (kBlockBits / 8); }

// ---- statistics: what the thresholds come from. Sums over ranks come between a count and what follows from it; a rank that is
// alone has both done in one call. ----

struct SumScores {
  const float* scores;  // [n], kUnseenBits = unseen
  std::int64_t num_slots;
  std::int64_t* sum;  // [12] out: the limbs of the exact sum, the number of seen scores, and a word of scratch
  float* thresholds;  // [3] out, as mean_threshold leaves them; or null, where the sums of other ranks are still to be added
};

struct MeanThreshold {
  const std::int64_t* sum;  // [11]
  float* thresholds;        // [3] out: the mean threshold, then -infinity
};

// One pass of radix selection, for count_digits and narrow_quantiles.
struct DigitPass {
  const float* scores;  // [n]; not read by narrow_quantiles
  std::int64_t num_slots;
  int pass;         // 0, 1, 2
  int num_targets;  // wanted order statistics, 1 to 3; pass 0 counts for the first alone, as all share it
  std::uint64_t fractions[kMaxThresholds];  // ceil(quantile * 2^32), descending
  QuantileState* state;                     // narrow_quantiles sets it in pass 0 and goes on with it
  std::int64_t* counts;                     // [3 passes, 3 targets, 2048], then a word of scratch. Pass 0 clears all of it
  float* thresholds;                        // [3] out, by narrow_quantiles in pass 2: descending, padded with -infinity
  bool alone;                               // count_digits does the work of narrow_quantiles too
  const std::uint8_t* protect;              // [ceil(n / 8)], a bit a slot: in pass 0 such samples are counted apart; or null
};
constexpr int kDigitCounts = kMaxThresholds * kDigitBins;  // words of a pass
constexpr int kDigitWords = kDigitPasses * kDigitCounts + 1;

// The histogram of target t in this pass. All targets share that of pass 0.
IB_HD std::int64_t* counts_of(const DigitPass& args, int t) {
  return args.counts + args.pass * kDigitCounts + (args.pass == 0 ? 0 : t * kDigitBins);
}

// Thresholds and tiers of importance sampling, from the counts of pass 0.
struct CutByImportance {
  const std::int64_t* counts;   // [2048]
  const double* norms;          // [kNorms] of the digits from kFirstPositive on, ascending
  std::uint64_t kept_fraction;  // ceil(fraction * 2^32) of the samples that are not protected, at most 2^32
  std::uint32_t least;          // cutoff that no tier is below
  float* thresholds;            // [3] out: descending, padded with -infinity
  Tiers* tiers;                 // [1] out
  std::int64_t* numbers;        // [2] out: seen scores, and negative ones of those that are not protected
};

// ---- histogram ----

struct ScoreRange {
  const float* scores;  // [n]
  std::int64_t num_slots;
  std::int32_t* keys;  // [3] out: the least number_key of seen scores, of their negatives, and of the sizes of those that are
                       // not 0; kNoKey where there is none
};
constexpr int kRangeKeys = 3;

// A score is in the bin whose number is the count of edges that are not above it. Unseen ones are in none, and those of other
// tiers where a tier is asked for.
struct CountBins {
  const float* scores;  // [n]
  std::int64_t num_slots;
  const std::int32_t* edges;  // [num_bins - 1] ascending, as number_key has them
  int num_bins;               // 1 to kMaxBins
  const std::uint8_t* marks;  // [mark_bytes(n)], or null: all slots are counted
  std::uint32_t tier;         // whose slots are, where there are marks
  std::int64_t* counts;       // [num_bins] out
};

// ---- plan ----

// The directory of marks, for select, and how many there are of each kind.
struct IndexBits {
  const std::uint64_t* words;  // [num_blocks(num_marks) * 8]
  std::int64_t num_marks;
  std::int64_t* ones_before;  // [num_blocks + 1] out; the last entry is the number of ones
  std::uint32_t* hints;       // [num_blocks + 1] out
  std::int64_t* counts;       // [9] out: kept marks, marks of each tier, kept marks of each tier
  std::int64_t* scratch;      // [kIndexScratch]; null on the CPU
};
constexpr int kIndexCounts = 1 + 2 * kMaxTiers;
constexpr int kIndexScratch = 1 << 14;

// Functions read tiers where they lie when they run, so that what was launched before, or captured in a graph, goes by the plan
// that is then in force.
struct SetTiers {
  Cutoffs cutoffs;
  double scale;  // of all weights
  Tiers* tiers;  // [1] out
};

struct DrawPlan {
  const float* scores;  // [n]
  std::int64_t first_slot;
  std::int64_t num_slots;
  const float* thresholds;  // [3], descending, padded with -infinity
  const Tiers* tiers;       // [1]
  std::uint64_t seed;
  std::uint32_t epoch;
  const std::uint8_t* protect;  // [ceil(n / 8)], a bit a slot: in tier 0 whatever its score; or null
  std::uint8_t* marks;          // [mark_bytes(n)] out: kept and tier of each slot, none visited; zeros behind n
  IndexBits index;              // of these marks: filled as index_bits would
};

// ---- record ----

// Faults that a call met. They are counted where they occur and read when the host looks anyway.
enum Fault {
  kNonFinite,   // scores
  kOutOfRange,  // ids of no sample
  kForeign,     // ids of other ranks
  kUnkept,      // visits of samples that the plan does not keep
  kBadId,       // one of those that are out of range or foreign
  kUnkeptId,    // one of those that are not kept
  kNumFaults,
};
constexpr int kFaultCounts = kBadId;  // ids stand behind the counts

struct Record {
  Shard shard;
  float* scores;              // [n] in and out
  std::uint8_t* marks;        // [mark_bytes(n)] in and out: the tier is read, visited is set
  std::int64_t* faults;       // [kNumFaults] in and out: counts are added to, ids overwritten by any one of the call
  const Tiers* tiers;         // [1], of the plan that made the marks
  bool visits;                // whether the samples were trained on; if not, marks stay as they are
  float share;                // of the weights that is returned: 1, or 1 / count. A bad index has the weight 1
  double momentum;            // in [0, 1): a seen sample's score is blended with what it had before the call; 0: replaced
  const std::int64_t* index;  // [count] sample ids; out-of-range and foreign ones touch nothing but the faults
  const float* new_scores;    // [count]; what is not finite, once it is blended, is counted and not stored
  std::int64_t count;
  float* weights;  // [count] out
};
// Of several finite scores for one sample, the one at the highest position of the call is stored; each is blended with the
// score from before the call.

struct LookUp {
  Shard shard;
  const std::uint8_t* marks;
  std::int64_t* faults;       // [kNumFaults] in and out
  const std::int64_t* index;  // [count]
  std::int64_t count;
  std::int64_t* slots;  // [count] out: place in this shard's table, -1 for a bad index
  std::uint8_t* found;  // [count] out: the mark, 0 for a bad index
};

// ---- order ----

// Position p of a rank's epoch: the slot of kept rank shuffle(p mod kept), as a sample id.
struct EpochOrder {
  Shard shard;
  Permutation shuffle;  // of [0, number of kept slots)
  BitIndex kept;
};

struct Order {
  EpochOrder epoch;
  const BitIndex* remaining;  // host pointer; the positions still to visit after a restart, or null: all of them
  std::int64_t start;         // positions [start, start + count) of the order, or of what remains of it
  std::int64_t count;
  std::int64_t* ids;  // [count] out
};

// What a restart leaves to do, as marks of their own: position p of the order is kept if it is not visited yet.
struct MarkRemaining {
  EpochOrder epoch;
  const std::uint8_t* marks;
  std::uint8_t* remaining;  // [mark_bytes(shuffle.size)] out, zeros behind the last position
};

#define INFOBATCH_BACKEND_FUNCTIONS(CONTEXT)                 \
  Status sum_scores(const SumScores&, CONTEXT);              \
  Status mean_threshold(const MeanThreshold&, CONTEXT);      \
  Status count_digits(const DigitPass&, CONTEXT);            \
  Status narrow_quantiles(const DigitPass&, CONTEXT);        \
  Status cut_by_importance(const CutByImportance&, CONTEXT); \
  Status score_range(const ScoreRange&, CONTEXT);            \
  Status count_bins(const CountBins&, CONTEXT);              \
  Status set_tiers(const SetTiers&, CONTEXT);                \
  Status draw_plan(const DrawPlan&, CONTEXT);                \
  Status index_bits(const IndexBits&, CONTEXT);              \
  Status record(const Record&, CONTEXT);                     \
  Status look_up(const LookUp&, CONTEXT);                    \
  Status order(const Order&, CONTEXT);                       \
  Status mark_remaining(const MarkRemaining&, CONTEXT);

namespace cpu {
INFOBATCH_BACKEND_FUNCTIONS(int threads)
}  // namespace cpu

namespace cuda {
INFOBATCH_BACKEND_FUNCTIONS(void* stream)
}  // namespace cuda

}  // namespace infobatch
