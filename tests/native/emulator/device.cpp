// The device of the checks, and CUDA's calls of the host.
#include "../device.h"

#include <cstring>

#include "cuda_runtime.h"
#include "memory.h"
#include "settings.h"

using emulator::settings;

namespace device {

void start(bool) {}

void* allocate(std::size_t bytes, std::size_t alignment, const char* name) {
  return emulator::add_array(bytes, alignment, name);
}

void release(void* memory) { emulator::remove_array(memory); }

void upload(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  std::memcpy(to, from, bytes);
  emulator::set_written(to, bytes);
}

void download(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void finish(const char*) {}

// Large grids have fewer switches, as each takes time. The largest have few threads, so that each has much to do.
void vary(std::uint64_t seed, std::int64_t num_slots) {
  constexpr std::int64_t kLarge = 10000, kHuge = 1000000;
  static constexpr int kLargeDevices[] = {132, 1, 4};
  const bool is_large = num_slots > kLarge, is_huge = num_slots > kHuge;
  settings.seed = seed;
  settings.device = static_cast<int>(seed / 2 % 3);
  settings.multiprocessors = is_huge ? 1 : is_large ? kLargeDevices[seed % 3] : 1 + static_cast<int>(seed % 3);
  settings.resident_blocks = 1 + static_cast<unsigned>(seed % 6);
  const unsigned of_small = seed % 4 == 3 ? 0 : 1 + static_cast<unsigned>(seed * 7 % 12);
  settings.switch_every = is_huge ? 0 : is_large ? 64 : of_small;
  settings.most_blocks = seed % 2 == 1 ? 2 : 0;
}

long faults() { return emulator::num_errors(); }

}  // namespace device

cudaError_t cudaGetDevice(int* ordinal) {
  *ordinal = settings.device;
  return cudaSuccess;
}

int emulated_version() { return settings.device == 1 ? 80 : 90; }

int emulated_clusters() { return settings.device == 0 ? 1 : 0; }

cudaError_t cudaSetDevice(int) { return cudaSuccess; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = settings.multiprocessors;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  emulator::set_written(memory, bytes);
  return cudaSuccess;
}
