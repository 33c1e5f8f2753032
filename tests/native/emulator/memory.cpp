#include "memory.h"

#include <pthread.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "races.h"
#include "settings.h"
#include "threads.h"

extern "C" char __executable_start, end;  // of the program's own image

namespace emulator {

bool sees_all_accesses = false;

namespace {

struct Array {
  std::unique_ptr<char[]> memory;
  char* begin;
  std::size_t bytes;
  std::string name;
  std::vector<Byte> history;
};

constexpr unsigned char kPoison = 0x5A;

std::map<const char*, Array> arrays;  // by end
Array* last_found = nullptr;

Array* find(const char* at) {
  if (last_found && at >= last_found->begin && at < last_found->begin + last_found->bytes) return last_found;
  const auto next = arrays.upper_bound(at);
  if (next == arrays.end() || at < next->second.begin) return nullptr;
  return last_found = &next->second;
}

// Arguments of a launch, and tables of constants: a GPU has them in memory of their own.
bool is_constant(const char* at) {
  static const std::pair<const char*, const char*> host_stack = [] {
    pthread_attr_t attributes;
    void* begin = nullptr;
    std::size_t bytes = 0;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &begin, &bytes);
    pthread_attr_destroy(&attributes);
    return std::pair(static_cast<const char*>(begin), static_cast<const char*>(begin) + bytes);
  }();
  return (at >= host_stack.first && at < host_stack.second) || (at >= &__executable_start && at < &end);
}

// The kernel's work is worth nothing from here on, and so is what follows.
[[noreturn]] void end_outside(const char* at, std::size_t bytes) {
  const auto next = arrays.upper_bound(at);
  if (next == arrays.begin()) {
    error("%zu bytes at an address of no array", bytes);
  } else {
    const auto& [end_of_array, array] = *std::prev(next);
    error("%zu bytes at an address of no array, %td behind the end of %s", bytes, at - end_of_array, array.name.c_str());
  }
  std::fflush(stdout);
  std::_Exit(1);
}

}  // namespace

void* add_array(std::size_t bytes, std::size_t alignment, const char* name) {
  if (bytes == 0) return nullptr;
  Array array{std::unique_ptr<char[]>(new char[bytes + alignment]), nullptr, bytes, name, {}};
  char* begin = array.begin = array.memory.get() + alignment;
  std::memset(begin, kPoison, bytes);
  if (sees_all_accesses) array.history.resize(bytes);
  arrays.emplace(begin + bytes, std::move(array));
  return begin;
}

void remove_array(void* memory) {
  const Array* array = memory ? find(static_cast<const char*>(memory)) : nullptr;
  if (!array) return;
  last_found = nullptr;
  arrays.erase(array->begin + array->bytes);
}

void set_written(const void* memory, std::size_t bytes) {
  if (!sees_all_accesses || bytes == 0) return;
  const char* at = static_cast<const char*>(memory);
  Array* array = find(at);
  if (!array || at + bytes > array->begin + array->bytes) return error("the host writes %zu bytes that no array has", bytes);
  const auto first = array->history.begin() + (at - array->begin);
  std::for_each(first, first + static_cast<std::ptrdiff_t>(bytes), [](Byte& byte) { byte.is_written = true; });
}

void access(const void* address, std::size_t bytes, Access kind) {
  const Thread* self = current_thread();
  if (!self) return;
  const bool is_aligned = reinterpret_cast<std::uintptr_t>(address) % bytes == 0;
  if (kind == Access::kAtomic && !is_aligned) error("an atomic operation on %zu bytes at an odd address", bytes);
  if (!sees_all_accesses) return;
  const char* at = static_cast<const char*>(address);
  if (self->fiber.on_stack(at) || (kind == Access::kRead && is_constant(at))) return;
  Array* array = find(at);
  if (!array || at + bytes > array->begin + array->bytes) end_outside(at, bytes);
  if (kind == Access::kAtomic) exchange_knowledge(address, *self);
  for (std::size_t i = static_cast<std::size_t>(at - array->begin), end_of_access = i + bytes; i < end_of_access; ++i) {
    if (!touch(array->history[i], kind, *self, array->name.c_str(), i)) break;
  }
}

void* shared_bytes(const char* declaration, std::size_t bytes) {
  constexpr std::size_t kMostBytes = 48 << 10;  // what a kernel gets without asking for more
  Block& block = *current_thread()->block;
  void*& memory = block.shared[declaration];
  if (memory) return memory;
  memory = add_array(bytes, 16, declaration);
  std::size_t all = 0;
  for (const auto& [other, of_other] : block.shared) all += find(static_cast<const char*>(of_other))->bytes;
  if (all > kMostBytes) error("%zu bytes of shared memory", all);
  return memory;
}

}  // namespace emulator
