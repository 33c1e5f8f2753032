// The program for a machine with a GPU: `gpu compare [--small]` and `gpu speed [--quick]`.
#include <cstdio>
#include <cstring>
#include <thread>

#include "compare.h"
#include "device.h"
#include "speed.h"

int main(int argc, char** argv) {
  const char* command = argc > 1 ? argv[1] : "";
  const char* option = argc > 2 ? argv[2] : "";
  if (std::strcmp(command, "compare") == 0 && (argc == 2 || std::strcmp(option, "--small") == 0)) {
    const bool is_small = argc > 2;  // for compute-sanitizer, under which a kernel takes 10 to 50 times as long
    Extent extent{.large_records = true, .long_table = 150000000};
    if (is_small) extent = {.largest = 5001, .every = 16, .every_place = false, .random_rounds = 20};
    extent.threads = static_cast<int>(std::thread::hardware_concurrency());
    device::start(is_small);
    return compare(extent) ? 0 : 1;
  }
  if (std::strcmp(command, "speed") == 0 && (argc == 2 || std::strcmp(option, "--quick") == 0)) {
    measure_speed(argc > 2);
    return 0;
  }
  std::printf(
      "usage: gpu compare [--small]    both backends over the same inputs; --small: for compute-sanitizer\n"
      "       gpu speed [--quick]      times of the CUDA backend, a line of JSON each; --quick: up to 1e8 slots\n");
  return 2;
}
