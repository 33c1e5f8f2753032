// The Python module _core: a flat list of the backend functions. Pointers travel as integers; `device` is -1 for the CPU or a
// CUDA ordinal, and `lane` is then the number of threads or the stream. Nothing is checked here: Python has checked shapes,
// dtypes and devices before (engine/checks.py).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>

#include "backends.h"
#include "cpu/memory.h"
#ifdef INFOBATCH_WITH_CUDA
#include "cuda/device.h"
#endif

namespace py = pybind11;
using namespace infobatch;

namespace {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// Which compilers made this, for bug reports.
#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__;
#elif defined(__GNUC__)
constexpr const char* kCompiler = "GCC " __VERSION__;
#else
constexpr const char* kCompiler = "unknown";
#endif

// The one place where a backend is chosen, the interpreter lock dropped, and a status becomes an exception.
template <class Args>
void run(const char* name, Status (*on_cpu)(const Args&, int), Status (*on_cuda)(const Args&, void*), int device, Address lane,
         const Args& args) {
  Status status;
  std::string reason;
  {
    py::gil_scoped_release unlocked;
    if (device < 0) {
      status = on_cpu(args, static_cast<int>(lane));
    } else {
#ifdef INFOBATCH_WITH_CUDA
      const cuda::DeviceGuard guard(device);
      status = on_cuda(args, at<void>(lane));
      if (status != Status::kOk) reason = cuda::last_error();
#else
      static_cast<void>(on_cuda);
      status = Status::kLaunchFailed;
      reason = "this build has no CUDA code";
#endif
    }
  }
  if (status != Status::kOk) throw std::runtime_error(std::string("infobatch_fast: ") + name + " failed: " + reason);
}

#ifdef INFOBATCH_WITH_CUDA
#define RUN(function, ...) run(#function, cpu::function, cuda::function, device, lane, __VA_ARGS__)
#else
#define RUN(function, ...) run(#function, cpu::function, {}, device, lane, __VA_ARGS__)
#endif

Cutoffs cutoffs_from(const std::array<std::uint32_t, kMaxTiers>& of_tier) {
  return {{of_tier[0], of_tier[1], of_tier[2], of_tier[3]}};
}

// The arguments of `record` that stay the same for a table's life, so that a call in the training loop passes few.
class Recorder {
 public:
  Recorder(int device, const Shard& shard, Address scores, Address marks, Address faults, Address tiers, double momentum)
      : device_(device), args_{} {
    args_.shard = shard;
    args_.scores = at<float>(scores);
    args_.marks = at<std::uint8_t>(marks);
    args_.faults = at<std::int64_t>(faults);
    args_.tiers = at<const Tiers>(tiers);
    args_.momentum = momentum;
  }

  // averaged: weights / count. visits: the samples were trained on.
  void record(Address lane, Address index, Address new_scores, std::int64_t count, bool averaged, bool visits,
              Address weights) const {
    Record args = args_;
    args.visits = visits;
    args.share = averaged ? static_cast<float>(1.0 / static_cast<double>(count)) : 1.0f;
    args.index = at<const std::int64_t>(index);
    args.new_scores = at<const float>(new_scores);
    args.count = count;
    args.weights = at<float>(weights);
    const int device = device_;
    RUN(record, args);
  }

 private:
  int device_;
  Record args_;
};

void bind_types(py::module_& m) {
  py::class_<Permutation>(m, "Permutation")
      .def_readonly("size", &Permutation::size)
      .def("apply", [](const Permutation& p, std::uint64_t item) { return permute(p, item); })
      .def("invert", [](const Permutation& p, std::uint64_t item) { return unpermute(p, item); });
  m.def("identity_permutation", &identity_permutation, py::arg("size"));
  m.def(
      "deal_permutation",
      [](std::uint64_t size, std::uint64_t seed) { return make_permutation(size, seed, Purpose::kDeal, 0, 0); },
      py::arg("size"), py::arg("seed"));
  m.def(
      "shuffle_permutation",
      [](std::uint64_t size, std::uint64_t seed, std::uint32_t epoch, std::uint32_t rank) {
        return make_permutation(size, seed, Purpose::kShuffle, epoch, rank);
      },
      py::arg("size"), py::arg("seed"), py::arg("epoch"), py::arg("rank"));

  py::class_<Shard>(m, "Shard")
      .def(py::init([](const Permutation& deal, std::int64_t first_slot, std::int64_t num_slots) {
             return Shard{deal, first_slot, num_slots};
           }),
           py::arg("deal"), py::arg("first_slot"), py::arg("num_slots"));

  py::class_<BitIndex>(m, "BitIndex")
      .def(py::init([](Address words, std::int64_t blocks, Address ones_before, Address hints) {
             return BitIndex{at<const std::uint64_t>(words), at<const std::int64_t>(ones_before),
                             at<const std::uint32_t>(hints), blocks};
           }),
           py::arg("words"), py::arg("num_blocks"), py::arg("ones_before"), py::arg("hints"));

  py::class_<EpochOrder>(m, "EpochOrder")
      .def(py::init([](const Shard& shard, const Permutation& shuffle, const BitIndex& kept) {
             return EpochOrder{shard, shuffle, kept};
           }),
           py::arg("shard"), py::arg("shuffle"), py::arg("kept"));

  py::class_<Recorder>(m, "Recorder")
      .def(py::init<int, const Shard&, Address, Address, Address, Address, double>(), py::arg("device"), py::arg("shard"),
           py::arg("scores"), py::arg("marks"), py::arg("faults"), py::arg("tiers"), py::arg("momentum"))
      .def("record", &Recorder::record, py::arg("lane"), py::arg("index"), py::arg("new_scores"), py::arg("count"),
           py::arg("averaged"), py::arg("visits"), py::arg("weights"));
}

void bind_statistics(py::module_& m) {
  m.def("sum_scores", [](int device, Address lane, Address scores, std::int64_t num_slots, Address sum, Address thresholds) {
    RUN(sum_scores, SumScores{at<const float>(scores), num_slots, at<std::int64_t>(sum), at<float>(thresholds)});
  });
  m.def("mean_threshold", [](int device, Address lane, Address sum, Address thresholds) {
    RUN(mean_threshold, MeanThreshold{at<const std::int64_t>(sum), at<float>(thresholds)});
  });
  py::class_<DigitPass>(m, "DigitPass")
      .def(py::init([](Address scores, std::int64_t num_slots, const std::vector<std::uint64_t>& fractions, Address state,
                       Address counts, Address thresholds, bool alone) {
             DigitPass args{at<const float>(scores),
                            num_slots,
                            0,
                            static_cast<int>(fractions.size()),
                            {},
                            at<QuantileState>(state),
                            at<std::int64_t>(counts),
                            at<float>(thresholds),
                            alone,
                            nullptr};
             std::copy_n(fractions.begin(), std::min<std::size_t>(fractions.size(), kMaxThresholds), args.fractions);
             return args;
           }),
           py::arg("scores"), py::arg("num_slots"), py::arg("fractions"), py::arg("state"), py::arg("counts"),
           py::arg("thresholds"), py::arg("alone"))
      .def_readwrite("digit", &DigitPass::pass);
  m.def("count_digits", [](int device, Address lane, const DigitPass& pass) { RUN(count_digits, pass); });
  m.def("narrow_quantiles", [](int device, Address lane, const DigitPass& pass) { RUN(narrow_quantiles, pass); });
  m.def("count_first_digits",
        [](int device, Address lane, Address scores, std::int64_t num_slots, Address protect, Address counts) {
          RUN(count_digits, DigitPass{.scores = at<const float>(scores),
                                      .num_slots = num_slots,
                                      .pass = 0,
                                      .num_targets = 1,
                                      .fractions = {},
                                      .state = nullptr,
                                      .counts = at<std::int64_t>(counts),
                                      .thresholds = nullptr,
                                      .alone = false,
                                      .protect = at<const std::uint8_t>(protect)});
        });
  m.def("cut_by_importance", [](int device, Address lane, Address counts, Address norms, std::uint64_t kept_fraction,
                                std::uint32_t least, Address thresholds, Address tiers, Address numbers) {
    RUN(cut_by_importance, CutByImportance{at<const std::int64_t>(counts), at<const double>(norms), kept_fraction, least,
                                           at<float>(thresholds), at<Tiers>(tiers), at<std::int64_t>(numbers)});
  });
}

void bind_histogram(py::module_& m) {
  m.def("number_of_key", &number_of_key);
  m.def("first_key_from", &first_key_from);
  m.def("score_range", [](int device, Address lane, Address scores, std::int64_t num_slots, Address keys) {
    RUN(score_range, ScoreRange{at<const float>(scores), num_slots, at<std::int32_t>(keys)});
  });
  m.def("count_bins", [](int device, Address lane, Address scores, std::int64_t num_slots, Address edges, int num_bins,
                         Address marks, std::uint32_t tier, Address counts) {
    RUN(count_bins, CountBins{at<const float>(scores), num_slots, at<const std::int32_t>(edges), num_bins,
                              at<const std::uint8_t>(marks), tier, at<std::int64_t>(counts)});
  });
}

void bind_plan(py::module_& m) {
  py::class_<IndexBits>(m, "IndexBits")
      .def(py::init(
               [](Address words, std::int64_t num_marks, Address ones_before, Address hints, Address counts, Address scratch) {
                 return IndexBits{at<const std::uint64_t>(words), num_marks,
                                  at<std::int64_t>(ones_before),  at<std::uint32_t>(hints),
                                  at<std::int64_t>(counts),       at<std::int64_t>(scratch)};
               }),
           py::arg("words"), py::arg("num_marks"), py::arg("ones_before"), py::arg("hints"), py::arg("counts"),
           py::arg("scratch"));
  m.def("set_tiers", [](int device, Address lane, const std::array<std::uint32_t, kMaxTiers>& cutoffs, double scale,
                        Address tiers) { RUN(set_tiers, SetTiers{cutoffs_from(cutoffs), scale, at<Tiers>(tiers)}); });
  m.def("draw_plan", [](int device, Address lane, Address scores, std::int64_t first_slot, std::int64_t num_slots,
                        Address thresholds, Address tiers, std::uint64_t seed, std::uint32_t epoch, Address protect,
                        Address marks, const IndexBits& index) {
    RUN(draw_plan, DrawPlan{at<const float>(scores), first_slot, num_slots, at<const float>(thresholds), at<const Tiers>(tiers),
                            seed, epoch, at<const std::uint8_t>(protect), at<std::uint8_t>(marks), index});
  });
  m.def("index_bits", [](int device, Address lane, const IndexBits& index) { RUN(index_bits, index); });
}

void bind_order(py::module_& m) {
  m.def("look_up", [](int device, Address lane, const Shard& shard, Address marks, Address faults, Address index,
                      std::int64_t count, Address slots, Address found) {
    RUN(look_up, LookUp{shard, at<const std::uint8_t>(marks), at<std::int64_t>(faults), at<const std::int64_t>(index), count,
                        at<std::int64_t>(slots), at<std::uint8_t>(found)});
  });
  m.def("order",
        [](int device, Address lane, const EpochOrder& epoch, const BitIndex* remaining, std::int64_t start, std::int64_t count,
           Address ids) { RUN(order, Order{epoch, remaining, start, count, at<std::int64_t>(ids)}); });
  m.def("mark_remaining", [](int device, Address lane, const EpochOrder& epoch, Address marks, Address remaining) {
    RUN(mark_remaining, MarkRemaining{epoch, at<const std::uint8_t>(marks), at<std::uint8_t>(remaining)});
  });
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.attr("__version__") = INFOBATCH_VERSION;
  m.attr("ALGORITHM_VERSION") = kAlgorithmVersion;
  m.attr("SUM_WORDS") = kSumWords;
  m.attr("DIGIT_BINS") = kDigitBins;
  m.attr("DIGIT_PASSES") = kDigitPasses;
  m.attr("DIGIT_COUNTS") = kDigitCounts;
  m.attr("DIGIT_WORDS") = kDigitWords;
  m.attr("FIRST_POSITIVE_DIGIT") = kFirstPositive;
  m.attr("INDEX_COUNTS") = kIndexCounts;
  m.attr("INDEX_SCRATCH") = kIndexScratch;
  m.attr("MAX_BINS") = kMaxBins;
  m.attr("NO_KEY") = kNoKey;
  m.attr("NORMS") = kNorms;
  m.attr("NUM_FAULTS") = static_cast<int>(kNumFaults);
  m.attr("RANGE_KEYS") = kRangeKeys;
  m.attr("MAX_THRESHOLDS") = kMaxThresholds;
  m.attr("MAX_SAMPLES") = kMaxSamples;
  m.attr("ROW_SLOTS") = kRowSlots;
  m.attr("CUTOFF_RANGE") = kLaneRange;
  m.attr("QUANTILE_STATE_BYTES") = sizeof(QuantileState);
  m.attr("TIERS_BYTES") = sizeof(Tiers);
  m.attr("TIER_WEIGHTS_OFFSET") = offsetof(Tiers, weights);
  m.attr("COMPILER") = kCompiler;
#ifdef INFOBATCH_WITH_CUDA
  m.attr("CUDA_ARCHITECTURES") = INFOBATCH_CUDA_ARCHITECTURES;
  m.attr("CUDA_TOOLKIT") = INFOBATCH_CUDA_TOOLKIT;
#else
  m.attr("CUDA_ARCHITECTURES") = py::none();
  m.attr("CUDA_TOOLKIT") = py::none();
#endif
#ifdef _OPENMP
  m.attr("OPENMP") = true;
#else
  m.attr("OPENMP") = false;
#endif
  m.def("num_blocks", [](std::int64_t num_marks) { return num_blocks(num_marks); });
  m.def("mark_bytes", [](std::int64_t num_marks) { return mark_bytes(num_marks); });
  m.def("cutoff_of", [](double keep_probability) { return cutoff_of(keep_probability); });
  m.def("tier_weights", [](const std::array<std::uint32_t, kMaxTiers>& cutoffs, double scale) {
    return std::to_array(tiers_of(cutoffs_from(cutoffs), scale).weights);
  });
  m.def("advise_huge_pages",
        [](Address memory, std::int64_t bytes) { return cpu::advise_huge_pages(at<void>(memory), bytes); });
  bind_types(m);
  bind_statistics(m);
  bind_histogram(m);
  bind_plan(m);
  bind_order(m);
}
