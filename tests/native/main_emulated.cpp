// The program with emulated kernels. Its arguments are a walk's extent: `emulated largest=1000 every=16`.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "compare.h"
#include "device.h"
#include "report.h"

int main(int argc, char** argv) {
  std::map<std::string, long long> values{{"smallest", 1},   {"largest", 300001},  {"every", 6},
                                          {"seed", 1},       {"every_place", 1},   {"random_rounds", 200},
                                          {"long_table", 0}, {"large_records", 0}, {"stop", 0}};
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i], name = argument.substr(0, argument.find('='));
    if (values.count(name) == 0 || name.size() + 1 >= argument.size()) {
      std::printf("%s: expected one of these names, = and a number:", argv[i]);
      for (const auto& [known, value] : values) std::printf(" %s", known.c_str());
      std::printf("\n");
      return 2;
    }
    values[name] = std::atoll(argument.c_str() + name.size() + 1);
  }
  const Extent extent{.smallest = values["smallest"],
                      .largest = values["largest"],
                      .every = static_cast<int>(values["every"]),
                      .seed = static_cast<std::uint64_t>(values["seed"]),
                      .every_place = values["every_place"] != 0,
                      .random_rounds = static_cast<int>(values["random_rounds"]),
                      .large_records = values["large_records"] != 0,
                      .long_table = values["long_table"]};
  if (values["stop"] != 0) report::stop_at_first_failure();
  device::start(false);
  return compare(extent) ? 0 : 1;
}
