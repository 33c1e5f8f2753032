// What the code of kernels asks of the emulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <tuple>

namespace emulator {

using Place = std::source_location;

// ---- launches ----
struct Launch {
  const char* kernel;
  unsigned blocks, threads;
  bool is_cluster = false;  // all blocks form one, so they run at the same time
};
// Runs a grid to its end.
void run(const Launch&, void (*kernel)(void*), void* arguments);

template <class Kernel>
struct Launcher {
  Launch launch;
  Kernel kernel;
  template <class... Arguments>
  void operator()(const Arguments&... arguments) const {
    struct Call {
      Kernel kernel;
      std::tuple<Arguments...> arguments;
    } call{kernel, {arguments...}};
    const auto invoke = [](void* at) {
      const Call& the_call = *static_cast<Call*>(at);
      std::apply(the_call.kernel, the_call.arguments);
    };
    run(launch, invoke, &call);
  }
};
// Stands for kernel<<<blocks, threads, 0, stream>>>.
template <class Kernel>
Launcher<Kernel> launch(const char* name, Kernel kernel, unsigned blocks, unsigned threads, int no_dynamic_bytes, void*) {
  static_cast<void>(no_dynamic_bytes);
  return {{name, blocks, threads}, kernel};
}

// ---- shared memory: one object for a block and a declaration ----
void* shared_bytes(const char* declaration, std::size_t bytes);
template <class T>
T& shared(const char* declaration) {
  return *static_cast<T*>(shared_bytes(declaration, sizeof(T)));
}

// ---- threads of a block, and lanes of a warp ----
bool barrier(bool vote, Place);  // whether any thread's vote is true
void cluster_barrier(Place);
void fence();

enum class Collective { kShuffle, kShuffleDown, kShuffleUp, kShuffleXor, kAll, kAny, kBallot, kAdd, kMax, kSync };
std::uint64_t collective(Collective, unsigned lanes, std::uint64_t value, unsigned operand, Place);

// ---- memory ----
enum class Access { kRead, kWrite, kAtomic };
void access(const void* address, std::size_t bytes, Access);
void maybe_switch();  // gives the turn to another thread, now and then

}  // namespace emulator
