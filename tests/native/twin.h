// What each backend gets of its own: the same arrays, in the memory of the host and in that of the device.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "../../csrc/backends.h"
#include "device.h"
#include "report.h"

enum class Side { kCpu, kCuda };

inline constexpr unsigned char kPoison = 0x5A;

template <class T>
class Twin {
 public:
  // To be written by a function. What it leaves out stays poisoned on both sides.
  Twin(const char* name, std::int64_t size, std::size_t alignment = 16)
      : name_(name), size_(static_cast<std::size_t>(size)), bytes_(new std::byte[size_ * sizeof(T) + alignment]) {
    host_ = reinterpret_cast<T*>(bytes_.get() + alignment);  // `new` aligns to 16, so this is aligned to no more than it says
    std::memset(static_cast<void*>(host_), kPoison, size_ * sizeof(T));
    device_ = static_cast<T*>(device::allocate(size_ * sizeof(T), alignment, name));
  }
  Twin(const char* name, const std::vector<T>& contents, std::size_t alignment = 16)
      : Twin(name, static_cast<std::int64_t>(contents.size()), alignment) {
    if (size_ > 0) std::memcpy(host_, contents.data(), size_ * sizeof(T));
    device::upload(device_, host_, size_ * sizeof(T));
  }
  Twin(const Twin& other) : Twin(other.name_, std::vector<T>(other.host_, other.host_ + other.size_)) {}
  Twin& operator=(const Twin&) = delete;
  ~Twin() { device::release(device_); }

  T* on(Side side) const { return side == Side::kCpu ? host_ : device_; }
  const T* host() const { return host_; }
  std::int64_t size() const { return static_cast<std::int64_t>(size_); }

  // The first `count` items alone: a sanitizer reports copies of what nobody has written.
  std::vector<T> from_device(std::int64_t count) const {
    std::vector<T> copy(static_cast<std::size_t>(count));
    device::download(copy.data(), device_, copy.size() * sizeof(T));
    return copy;
  }

  bool expect_same(const char* function) const { return expect_same(function, size()); }
  bool expect_same(const char* function, std::int64_t count) const {
    return report::expect_same(function, name_, from_device(count).data(), host_, static_cast<std::size_t>(count), sizeof(T));
  }

 private:
  const char* name_;
  std::size_t size_;
  std::unique_ptr<std::byte[]> bytes_;
  T *host_, *device_;
};

// Calls a function of both backends; arguments_on(side) are its arguments there.
template <class Arguments, class ArgumentsOn>
void call(const char* function, infobatch::Status (*on_cpu)(const Arguments&, int),
          infobatch::Status (*on_cuda)(const Arguments&, void*), int threads, const ArgumentsOn& arguments_on) {
  const Arguments of_cpu = arguments_on(Side::kCpu), of_cuda = arguments_on(Side::kCuda);
  report::expect(function, "the CPU backend's status", on_cpu(of_cpu, threads) == infobatch::Status::kOk);
  report::expect(function, "the CUDA backend's status", on_cuda(of_cuda, nullptr) == infobatch::Status::kOk);
  device::finish(function);
}
#define CALL_BOTH(function, threads, ...) \
  call(#function, infobatch::cpu::function, infobatch::cuda::function, threads, __VA_ARGS__)
