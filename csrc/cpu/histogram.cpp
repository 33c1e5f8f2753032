// The histogram of the scores: their range, and how many are in each bin.
#include <bit>

#include "parallel.h"

namespace infobatch::cpu {
namespace {

constexpr std::int64_t kGrain = 1 << 16;
constexpr std::int64_t kCountGrain = 1 << 22;  // below 2^32, the range of a counter
constexpr int kTile = 512;

IB_MULTIVERSION void lower_by_tile(const float* scores, std::int32_t* lowest) {
  std::int32_t first = lowest[0], second = lowest[1], third = lowest[2];
  for (int i = 0; i < kTile; ++i) {
    const std::int32_t key = number_key(bits_of(scores[i]));
    first = std::min(first, range_key(key, 0));
    second = std::min(second, range_key(key, 1));
    third = std::min(third, range_key(key, 2));
  }
  lowest[0] = first, lowest[1] = second, lowest[2] = third;
}

void lower_at_once(std::int32_t* lowest, std::int32_t key) {
  std::int32_t found = __atomic_load_n(lowest, __ATOMIC_RELAXED);
  while (key < found && !__atomic_compare_exchange_n(lowest, &found, key, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

// What is between the first edge and the last one is cut into equal cells of keys. Keys below are in the first cell, keys above
// in the last.
struct Cells {
  std::int32_t first = 0;
  std::uint32_t span = 0;
  int shift = 0;

  std::uint32_t cell_of(std::int32_t key) const {
    const std::uint32_t above = static_cast<std::uint32_t>(key > first ? key : first) - static_cast<std::uint32_t>(first);
    return (above < span ? above : span) >> shift;
  }
};

// Where a tile's bins lie apart from all else, the compiler vectorises these loops.
IB_MULTIVERSION void find_cells(const float* scores, const Cells& cells, std::int32_t* __restrict keys,
                                std::int32_t* __restrict of_keys) {
  const Cells found = cells;
  for (int i = 0; i < kTile; ++i) {
    const std::int32_t key = number_key(bits_of(scores[i]));
    keys[i] = key;
    of_keys[i] = static_cast<std::int32_t>(found.cell_of(key));
  }
}

IB_MULTIVERSION void advance_bins(const std::int32_t* edges, const std::int32_t* keys, int step,
                                  std::int32_t* __restrict bins) {
  for (int i = 0; i < kTile; ++i) bins[i] = count_edges_once(edges, keys[i], bins[i], step);
}

IB_MULTIVERSION void leave_out_unseen(const std::int32_t* keys, std::int32_t beyond, std::int32_t* __restrict bins) {
  for (int i = 0; i < kTile; ++i) bins[i] = is_number_key(keys[i]) ? bins[i] : beyond;
}

// Slots of other tiers go where unseen ones are.
IB_MULTIVERSION void leave_out_other_tiers(const std::uint8_t* marks, std::uint32_t tier, int num_slots, std::int32_t beyond,
                                           std::int32_t* __restrict bins) {
  for (int i = 0; i < num_slots; ++i) {
    bins[i] = tier_of_mark(mark_at(marks, static_cast<std::uint64_t>(i))) == tier ? bins[i] : beyond;
  }
}

// The edges, and how many of them come before each cell. Logarithmic bins are nearly even in keys, so a cell hardly ever has
// more than a few edges, and few steps are left to do.
class Edges {
 public:
  Edges(const std::int32_t* edges, int num_bins) : num_bins_(num_bins) {
    const int num_edges = num_bins - 1;
    std::fill(std::copy(edges, edges + num_edges, edges_), edges_ + 2 * kMaxBins, kNoKey);
    if (num_edges > 0) {
      cells_.first = edges[0];
      cells_.span = static_cast<std::uint32_t>(edges[num_edges - 1]) - static_cast<std::uint32_t>(edges[0]);
      cells_.shift = std::max(0, static_cast<int>(std::bit_width(cells_.span)) - kCellBits);
    }
    int most = 0;
    for (int cell = 0, edge = 0; cell < kCells; ++cell) {
      before_[cell] = edge;
      while (edge < num_edges && cells_.cell_of(edges[edge]) == static_cast<std::uint32_t>(cell)) ++edge;
      most = std::max(most, edge - before_[cell]);
    }
    step_ = first_step(most);
  }

  // The bins of a tile of scores; that of an unseen one is num_bins.
  void find_bins(const float* scores, std::int32_t* bins) const {
    std::int32_t keys[kTile];
    find_cells(scores, cells_, keys, bins);
    for (int i = 0; i < kTile; ++i) bins[i] = before_[bins[i]];
    for (int step = step_; step > 0; step /= 2) advance_bins(edges_, keys, step, bins);
    leave_out_unseen(keys, num_bins_, bins);
  }

 private:
  static constexpr int kCellBits = 12, kCells = 1 << kCellBits;

  std::int32_t num_bins_;
  Cells cells_;
  int step_;
  std::int32_t before_[kCells];
  std::int32_t edges_[2 * kMaxBins];
};

// Of a grain; in two copies, as neighbours often share a bin and an addition waits for the one before.
struct BinCounts {
  std::uint32_t bin[2][kMaxBins + 1] = {};

  void add_tile(const std::int32_t* bins) {
    for (int i = 0; i < kTile; i += 2) {
      bin[0][bins[i]] += 1;
      bin[1][bins[i + 1]] += 1;
    }
  }
  void add_to(std::int64_t* counts, int num_bins) const {
    for (int i = 0; i < num_bins; ++i) {
      const std::int64_t count = static_cast<std::int64_t>(bin[0][i]) + bin[1][i];
      if (count == 0) continue;
#pragma omp atomic
      counts[i] += count;
    }
  }
};

}  // namespace

Status score_range(const ScoreRange& args, int threads) {
  std::fill(args.keys, args.keys + kRangeKeys, kNoKey);
  parallel_parts(args.num_slots, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    std::int32_t lowest[kRangeKeys] = {kNoKey, kNoKey, kNoKey};
    for_each_tile<kTile>(args.scores, begin, end, [&](const float* tile, std::int64_t) { lower_by_tile(tile, lowest); });
    for (int i = 0; i < kRangeKeys; ++i) lower_at_once(args.keys + i, lowest[i]);
  });
  return Status::kOk;
}

Status count_bins(const CountBins& args, int threads) {
  std::fill(args.counts, args.counts + args.num_bins, 0);
  const Edges edges(args.edges, args.num_bins);
  parallel_parts(args.num_slots, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t grain = begin; grain < end; grain += kCountGrain) {
      BinCounts counts;
      for_each_tile<kTile>(args.scores, grain, std::min(grain + kCountGrain, end), [&](const float* tile, std::int64_t first) {
        std::int32_t bins[kTile];
        edges.find_bins(tile, bins);
        if (args.marks) {
          const int slots = static_cast<int>(std::min<std::int64_t>(kTile, args.num_slots - first));
          leave_out_other_tiers(args.marks + first / 2, args.tier, slots, args.num_bins, bins);
        }
        counts.add_tile(bins);
      });
      counts.add_to(args.counts, args.num_bins);
    }
  });
  return Status::kOk;
}

}  // namespace infobatch::cpu
