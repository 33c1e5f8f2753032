#include "device.h"
#include "parallel.cuh"

namespace infobatch::cuda {
namespace {

thread_local cudaError_t last_failure = cudaSuccess;

}  // namespace

DeviceGuard::DeviceGuard(int ordinal) noexcept : previous_(kNone) {
  int current = kNone;
  if (cudaGetDevice(&current) == cudaSuccess && current != ordinal && cudaSetDevice(ordinal) == cudaSuccess)
    previous_ = current;
}

DeviceGuard::~DeviceGuard() {
  if (previous_ != kNone) cudaSetDevice(previous_);
}

const char* last_error() noexcept { return cudaGetErrorString(last_failure); }

Status status_of(cudaError_t error) noexcept {
  if (error == cudaSuccess) return Status::kOk;
  cudaGetLastError();  // so that the next launch is not blamed for it
  last_failure = error;
  return Status::kLaunchFailed;
}

unsigned resident_blocks(std::int64_t tiles, int blocks_per_multiprocessor) noexcept {
  int device = 0, multiprocessors = 1;
  if (cudaGetDevice(&device) == cudaSuccess) {
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  return static_cast<unsigned>(std::min<std::int64_t>(tiles, std::int64_t{multiprocessors} * blocks_per_multiprocessor));
}

}  // namespace infobatch::cuda
