// Which GPU is current, and what went wrong on it. No CUDA header in here: the bindings include it too.
#pragma once

namespace infobatch::cuda {

// Makes device `ordinal` current in this thread and undoes that at the end of its scope. An ordinal that the driver refuses
// leaves things as they are: the launch that follows is then refused as well, and reported there.
class DeviceGuard {
 public:
  explicit DeviceGuard(int ordinal) noexcept;
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  static constexpr int kNone = -1;
  int previous_;  // the device to go back to
};

// The text of this thread's last failed launch.
const char* last_error() noexcept;

}  // namespace infobatch::cuda
