#include <algorithm>
#include <iterator>
#include <vector>

#include "cuda_checked.h"
#include "device.h"

namespace device {
namespace {

constexpr std::size_t kArena = std::size_t{2} << 30, kLine = 256;
constexpr std::size_t kGuard = 256;
constexpr unsigned char kGuardByte = 0xA5, kPoisonByte = 0x5A;

struct Array {
  char* begin;
  std::size_t bytes;
  const char* name;
  void* allocation;  // of its own, or null in the arena
};

bool is_exact = false;
char *arena = nullptr, *top = nullptr;
std::vector<Array> arrays;
long broken_guards = 0;

void check_guard(const Array& array) {
  unsigned char guard[kGuard];
  CHECKED(cudaMemcpy(guard, array.begin + array.bytes, kGuard, cudaMemcpyDeviceToHost));
  const auto* broken = std::find_if(std::begin(guard), std::end(guard), [](unsigned char byte) { return byte != kGuardByte; });
  if (broken == std::end(guard)) return;
  ++broken_guards;
  std::printf("FAILED: %s of %zu bytes was written to behind its end, at byte %zu [%s]\n", array.name, array.bytes,
              array.bytes + static_cast<std::size_t>(broken - guard), report::case_name());
}

}  // namespace

void start(bool exact) {
  is_exact = exact;
  if (is_exact || arena != nullptr) return;
  CHECKED(cudaMalloc(&arena, kArena));
  top = arena;
}

void* allocate(std::size_t bytes, std::size_t alignment, const char* name) {
  if (is_exact) {
    if (bytes == 0) return nullptr;
    void* allocation = nullptr;
    CHECKED(cudaMalloc(&allocation, bytes + alignment));
    arrays.push_back({static_cast<char*>(allocation) + alignment, bytes, name, allocation});
    return arrays.back().begin;
  }
  const std::size_t used = static_cast<std::size_t>(top - arena);
  char* begin = arena + (used + kLine - 1) / kLine * kLine + alignment;
  top = begin + bytes + kGuard;
  if (top > arena + kArena) check_cuda(cudaErrorMemoryAllocation, "the arena of device memory");
  CHECKED(cudaMemset(begin, kPoisonByte, bytes));
  CHECKED(cudaMemset(begin + bytes, kGuardByte, kGuard));
  arrays.push_back({begin, bytes, name, nullptr});
  return begin;
}

void release(void* memory) {
  if (memory == nullptr) return;
  const Array array = arrays.back();
  if (array.begin != memory) check_cuda(cudaErrorInvalidDevicePointer, "release, which is to be in the reverse order");
  arrays.pop_back();
  if (is_exact) {
    CHECKED(cudaFree(array.allocation));
  } else {
    check_guard(array);
    top = array.begin;
  }
}

void upload(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) CHECKED(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}

void download(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) CHECKED(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

void finish(const char* function) { check_cuda(cudaDeviceSynchronize(), function); }

void vary(std::uint64_t, std::int64_t) {}

long faults() { return broken_guards; }

}  // namespace device
