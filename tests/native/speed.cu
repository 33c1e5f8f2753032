#include "speed.h"
#include "speed_table.cuh"
#include "stopwatch.cuh"

namespace backend = infobatch::cuda;

namespace {

constexpr std::int64_t kSector = 32;  // what a random access moves at least

class Speed {
 public:
  Speed() {
    cudaDeviceProp device;
    CHECKED(cudaGetDeviceProperties(&device, 0));
    const std::int64_t bytes = std::int64_t{4} << 30;
    const DeviceArray<char> from(bytes);
    DeviceArray<char> to(bytes);
    const Timing timing = stopwatch_.measure([](int) {}, [&](int) { to.copy_from(from); });
    copy_GBps_ = 2 * static_cast<double>(bytes) / timing.median_us / 1e3;
    std::printf("{\"device\": \"%s\", \"multiprocessors\": %d, \"copy_GBps\": %.1f}\n", device.name, device.multiProcessorCount,
                copy_GBps_);
  }

  // `items` are what a call works on: slots, samples or ids. `bytes`: what it has to read and write at least.
  template <class Prepare, class Call>
  void print(const char* kernel, std::int64_t num_slots, std::int64_t items, std::int64_t bytes, const Prepare& prepare,
             const Call& call) {
    const Timing t = stopwatch_.measure(prepare, [&](int i) {
      if (call(i) != infobatch::Status::kOk) check_cuda(cudaErrorLaunchFailure, kernel);
    });
    const double GBps = static_cast<double>(bytes) / t.median_us / 1e3;
    std::printf(
        "{\"kernel\": \"%s\", \"n\": %lld, \"items\": %lld, \"median_us\": %.2f, \"low_us\": %.2f, \"high_us\": %.2f, "
        "\"call_us\": %.2f, \"bytes\": %lld, \"GBps\": %.1f, \"of_copy\": %.3f, \"items_per_s\": %.4g}\n",
        kernel, static_cast<long long>(num_slots), static_cast<long long>(items), t.median_us, t.low_us, t.high_us, t.call_us,
        static_cast<long long>(bytes), GBps, GBps / copy_GBps_, static_cast<double>(items) / t.median_us * 1e6);
    std::fflush(stdout);
  }

 private:
  Stopwatch stopwatch_;
  double copy_GBps_ = 0;
};

const auto nothing = [](int) {};

std::int64_t bytes_of_plan(const Table& t, bool protects) {
  return 4 * t.num_slots + (protects ? t.num_slots / 8 : 0) + t.num_slots / 2 + 12 * t.blocks;
}

void measure_statistics(Speed& speed, Table& t) {
  const std::int64_t n = t.num_slots, bytes = 4 * n;
  const infobatch::SumScores sum{t.scores.get(), n, t.sum.get(), t.mean.get()};
  speed.print("sum_scores", n, n, bytes, nothing, [&](int) { return backend::sum_scores(sum, nullptr); });
  const infobatch::MeanThreshold mean{t.sum.get(), t.mean.get()};
  speed.print("mean_threshold", n, 1, 8 * infobatch::kSumWords, nothing,
              [&](int) { return backend::mean_threshold(mean, nullptr); });

  static constexpr const char* names[2][3] = {
      {"count_digits 0, 2 targets", "count_digits 1, 2 targets", "count_digits 2, 2 targets"},
      {"count_digits 0, 3 targets", "count_digits 1, 3 targets", "count_digits 2, 3 targets"}};
  for (int targets = 2; targets <= 3; ++targets) {
    for (int pass = 0; pass < infobatch::kDigitPasses; ++pass) {
      DeviceArray<infobatch::QuantileState> state(1);
      DeviceArray<std::int64_t> digits(infobatch::kDigitWords);
      state.copy_from(t.state), digits.copy_from(t.digits);
      const auto as_before = [&](int) { t.state.copy_from(state), t.digits.copy_from(digits); };
      const infobatch::DigitPass args = t.digit_pass(pass, targets);
      speed.print(names[targets - 2][pass], n, n, bytes, as_before, [&](int) { return backend::count_digits(args, nullptr); });
    }
  }
}

// Bins between 2^-24 and 2^5, where the scores are.
void measure_histogram(Speed& speed, const Table& t) {
  const std::int64_t n = t.num_slots, bytes = 4 * n;
  const DeviceArray<std::int32_t> keys(infobatch::kRangeKeys), edges(infobatch::kMaxBins);
  const DeviceArray<std::int64_t> counts(infobatch::kMaxBins);
  speed.print("score_range", n, n, bytes, nothing,
              [&](int) { return backend::score_range({t.scores.get(), n, keys.get()}, nullptr); });
  for (const int num_bins : {64, infobatch::kMaxBins}) {
    const std::int32_t lowest = infobatch::first_key_from(0x1p-24), width = (29 << 23) / num_bins;
    fill_kernel<<<1, 256>>>(edges.get(), num_bins - 1, SpacedKey{lowest, width});
    CHECKED(cudaGetLastError());
    speed.print(num_bins == 64 ? "count_bins, 64" : "count_bins, 4096", n, n, bytes, nothing, [&](int) {
      return backend::count_bins({t.scores.get(), n, edges.get(), num_bins, nullptr, 0, counts.get()}, nullptr);
    });
  }
}

infobatch::Status quantile_plan(const Table& t, int num_targets, const infobatch::DrawPlan& plan) {
  for (int pass = 0; pass < infobatch::kDigitPasses; ++pass) {
    const infobatch::Status status = backend::count_digits(t.digit_pass(pass, num_targets), nullptr);
    if (status != infobatch::Status::kOk) return status;
  }
  return backend::draw_plan(plan, nullptr);
}

void measure_plans(Speed& speed, Table& t) {
  const std::int64_t n = t.num_slots, bytes = bytes_of_plan(t, false);
  const auto draws = [](const infobatch::DrawPlan& plan) { return [plan](int) { return backend::draw_plan(plan, nullptr); }; };
  speed.print("set_tiers", n, 1, sizeof(infobatch::Tiers), nothing,
              [&](int) { return backend::set_tiers(t.set_tiers(), nullptr); });
  const infobatch::DrawPlan by_mean = t.draw_plan(t.mean, false), protects = t.draw_plan(t.mean, true);
  const infobatch::DrawPlan by_quantiles = t.draw_plan(t.quantiles, false);
  speed.print("draw_plan, 3 thresholds", n, n, bytes, nothing, draws(by_quantiles));
  speed.print("draw_plan, mean, protect", n, n, bytes_of_plan(t, true), nothing, draws(protects));
  speed.print("draw_plan, mean", n, n, bytes, nothing, draws(by_mean));
  const infobatch::IndexBits index = t.index_bits();
  speed.print("index_bits", n, n, n / 2 + 12 * t.blocks, nothing, [&](int) { return backend::index_bits(index, nullptr); });

  for (int targets = 2; targets <= 3; ++targets) {
    speed.print(targets == 2 ? "plan, 2 quantiles" : "plan, 3 quantiles", n, n, 12 * n + bytes, nothing,
                [&](int) { return quantile_plan(t, targets, by_quantiles); });
  }
  const infobatch::DigitPass counting = t.digit_pass(0, 1, false);
  const infobatch::CutByImportance cut = t.cut();
  speed.print("cut_by_importance", n, 1, 8 * infobatch::kDigitBins, nothing,
              [&](int) { return backend::cut_by_importance(cut, nullptr); });
  speed.print("plan, importance", n, n, 4 * n + bytes, nothing, [&](int) {
    const infobatch::Status counted = backend::count_digits(counting, nullptr);
    const infobatch::Status status = counted == infobatch::Status::kOk ? backend::cut_by_importance(cut, nullptr) : counted;
    return status == infobatch::Status::kOk ? backend::draw_plan(t.draw_plan(t.cuts, false), nullptr) : status;
  });
  const infobatch::SumScores sum{t.scores.get(), n, t.sum.get(), t.mean.get()};
  speed.print("plan, mean", n, n, 4 * n + bytes, nothing, [&](int) {
    const infobatch::Status status = backend::sum_scores(sum, nullptr);
    return status == infobatch::Status::kOk ? backend::draw_plan(by_mean, nullptr) : status;
  });
}

void measure_epoch(Speed& speed, Table& t) {
  const std::int64_t n = t.num_slots, kept = t.num_kept();
  for (const std::int64_t count : {256, 1024, 4096, 65536, 1 << 20}) {
    const auto first = [&](int i) { return i * count % Table::kIds; };  // other samples in each repetition
    for (const double momentum : {0.0, 0.5}) {
      speed.print(momentum > 0 ? "record, momentum" : "record", n, count, count * (16 + 4 * kSector), nothing,
                  [&](int i) { return backend::record(t.record(first(i), count, momentum), nullptr); });
    }
    speed.print("look_up", n, count, count * (17 + kSector), nothing,
                [&](int i) { return backend::look_up(t.look_up(first(i), count), nullptr); });
  }
  const infobatch::EpochOrder epoch = t.epoch(kept);
  const std::int64_t bytes_of_select = 4 * kSector;
  for (const std::int64_t wanted : {std::int64_t{10000000}, kept}) {
    const std::int64_t count = std::min(wanted, kept);
    const infobatch::Order order{epoch, nullptr, 0, count, t.ids.get()};
    speed.print(wanted == kept ? "order, all" : "order", n, count, count * (8 + bytes_of_select), nothing,
                [&](int) { return backend::order(order, nullptr); });
  }
  const infobatch::MarkRemaining remaining{epoch, t.marks.get(), t.remaining.get()};
  speed.print("mark_remaining", n, kept, kept * bytes_of_select + kept / 2, nothing,
              [&](int) { return backend::mark_remaining(remaining, nullptr); });
}

}  // namespace

void measure_speed(bool quick) {
  Speed speed;
  speed.print("nothing", 0, 0, 0, nothing, [](int) {  // the least that a launch takes
    wait_kernel<<<1, 1>>>(0);
    return infobatch::Status::kOk;
  });
  for (const std::int64_t num_slots : {1000000ll, 10000000ll, 100000000ll, 1000000000ll}) {
    std::size_t free_bytes = 0, all_bytes = 0;
    CHECKED(cudaMemGetInfo(&free_bytes, &all_bytes));
    if ((quick && num_slots > 100000000) || static_cast<std::size_t>(Table::bytes_for(num_slots)) > free_bytes) break;
    Table table(num_slots);
    measure_statistics(speed, table);
    measure_histogram(speed, table);
    measure_plans(speed, table);
    measure_epoch(speed, table);
  }
}
