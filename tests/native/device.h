// Memory of the device that the CUDA backend runs on: a GPU (device_gpu.cpp), or the emulator (emulator/device.cpp).
#pragma once

#include <cstddef>
#include <cstdint>

namespace device {

// Exact: each array ends where its allocation ends and holds nothing yet, so that a memory checker sees what goes wrong. Else
// arrays come poisoned, and behind each of them stands a band of bytes that `release` looks at.
void start(bool exact);

// The address is a multiple of `alignment` and of no higher power of two, since callers of the backends promise no more.
void* allocate(std::size_t bytes, std::size_t alignment, const char* name);
void release(void* memory);  // arrays go in the reverse order of their coming

void upload(void* to, const void* from, std::size_t bytes);
void download(void* to, const void* from, std::size_t bytes);

// Waits for what was launched. A fault there ends the program, which names the function.
void finish(const char* function);

// What may differ between runs of a kernel (number of multiprocessors, order of threads) is drawn anew where it can be.
void vary(std::uint64_t seed, std::int64_t num_slots);

// Faults that the device saw itself.
long faults();

}  // namespace device
