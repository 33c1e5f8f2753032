// The arrays that kernels may touch, and who touched them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

// Set by hooks.cpp, where loads and stores of kernels come here too.
extern bool sees_all_accesses;

void* add_array(std::size_t bytes, std::size_t alignment, const char* name);
void remove_array(void* array);
// Bytes that the host has written.
void set_written(const void* memory, std::size_t bytes);

}  // namespace emulator
