#include "report.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "device.h"

namespace report {
namespace {

struct Tally {
  long comparisons = 0, failures = 0;
};

constexpr long kPrinted = 5;  // failures of a function that are printed

std::map<std::string, Tally> tally_of;
std::string current_case = "start";
bool stops = false;
unsigned long long digest_so_far = 0xCBF29CE484222325ull;

void print_item(const char* side, const void* item, std::size_t bytes) {
  unsigned long long bits = 0;
  std::memcpy(&bits, item, std::min(bytes, sizeof bits));
  std::printf(", %s %0*llx", side, static_cast<int>(2 * std::min(bytes, sizeof bits)), bits);
}

// FNV-1a.
void digest_more(const void* items, std::size_t bytes) {
  const unsigned char* const begin = static_cast<const unsigned char*>(items);
  for (std::size_t i = 0; i < bytes; ++i) digest_so_far = (digest_so_far ^ begin[i]) * 0x100000001B3ull;
}

void count(const char* function) {
  ++tally_of[function].comparisons;
  if (stops && device::faults() > 0) std::exit(1);
}

// Whether this failure is one to be printed.
bool fails(const char* function) { return ++tally_of[function].failures <= kPrinted; }

void end_failure() {
  std::printf(" [%s]\n", current_case.c_str());
  std::fflush(stdout);
  if (stops) std::exit(1);
}

}  // namespace

void set_case(const std::string& name) { current_case = name; }

const char* case_name() { return current_case.c_str(); }

void stop_at_first_failure() { stops = true; }

void expect(const char* function, const char* what, bool holds) {
  count(function);
  if (holds || !fails(function)) return;
  std::printf("FAILED %s: %s", function, what);
  end_failure();
}

bool expect_same(const char* function, const char* what, const void* of_cuda, const void* of_cpu, std::size_t num_items,
                 std::size_t item_bytes) {
  count(function);
  digest_more(of_cpu, num_items * item_bytes);
  if (num_items == 0 || std::memcmp(of_cuda, of_cpu, num_items * item_bytes) == 0) return true;
  if (!fails(function)) return false;
  const char *cuda = static_cast<const char*>(of_cuda), *cpu = static_cast<const char*>(of_cpu);
  std::size_t differing = 0, first = num_items;
  for (std::size_t i = 0; i < num_items; ++i) {
    if (std::memcmp(cuda + i * item_bytes, cpu + i * item_bytes, item_bytes) == 0) continue;
    first = std::min(first, i);
    ++differing;
  }
  std::printf("DIFFERENT %s: %zu of %zu %s, the first at %zu", function, differing, num_items, what, first);
  print_item("cuda", cuda + first * item_bytes, item_bytes);
  print_item("cpu", cpu + first * item_bytes, item_bytes);
  end_failure();
  return false;
}

unsigned long long digest() { return digest_so_far; }

bool summary() {
  Tally all;
  for (const auto& [function, tally] : tally_of) {
    std::printf("%-18s %8ld comparisons, %ld failed\n", function.c_str(), tally.comparisons, tally.failures);
    all.comparisons += tally.comparisons;
    all.failures += tally.failures;
  }
  const long failed = all.failures + device::faults();
  std::printf("%ld comparisons, %ld failed\n", all.comparisons, failed);
  return failed == 0;
}

}  // namespace report
