#include "races.h"

#include <algorithm>

#include "settings.h"

namespace emulator {
namespace {

// What blocks had put behind fences when they changed a word at once: block -> epoch.
std::map<const void*, std::map<unsigned, std::uint32_t>> published;

unsigned block_of(const Moment& moment) { return (moment.thread - 1) / threads_per_block(); }

// Whether what happened then is ordered before what this thread does now. `by_several`: by any threads of that block.
bool is_ordered(const Moment& then, bool by_several, const Thread& self) {
  const Moment now = self.now();
  if (then.thread == now.thread && !by_several) return true;
  const unsigned block = block_of(then);
  if (block == self.block->index) {
    const bool same_warp = (then.thread - 1) % threads_per_block() / 32 == self.index / 32;
    return then.epoch < now.epoch || (same_warp && !by_several && then.step < now.step);
  }
  const auto known = self.block->known.find(block);
  if (known == self.block->known.end() || then.epoch >= known->second.epoch) return false;
  return known->second.learnt.thread == now.thread || known->second.learnt.epoch < now.epoch;
}

void note(Byte& byte, Access kind, const Thread& self) {
  const Moment now = self.now();
  if (kind != Access::kRead) {
    byte.write = now;
    byte.is_atomic = kind == Access::kAtomic;
    byte.is_written = true;
    return;
  }
  const bool same_epoch = byte.read.thread != 0 && byte.read.epoch == now.epoch && block_of(byte.read) == self.block->index;
  byte.several_readers = same_epoch && (byte.several_readers || byte.read.thread != now.thread);
  byte.read = now;
}

// What is wrong with an access, in the words of a report.
const char* fault_of(const Byte& byte, Access kind, const Thread& self) {
  const bool reads = kind != Access::kWrite, writes = kind != Access::kRead,
             both_atomic = kind == Access::kAtomic && byte.is_atomic;
  if (reads && !byte.is_written) return "is read, and nobody wrote it";
  if (byte.write.thread != 0 && !both_atomic && !is_ordered(byte.write, false, self)) {
    return writes ? "is written twice, in no order" : "is read and written, in no order";
  }
  if (writes && byte.read.thread != 0 && !is_ordered(byte.read, byte.several_readers, self))
    return "is written and read, in no order";
  return nullptr;
}

}  // namespace

bool touch(Byte& byte, Access kind, const Thread& self, const char* array, std::size_t place) {
  if (byte.launch != launch_number()) {
    const bool is_written = byte.is_written;
    byte = Byte{};
    byte.launch = launch_number(), byte.is_written = is_written;
  }
  const char* fault = fault_of(byte, kind, self);
  if (fault) error("byte %zu of %s %s", place, array, fault);
  note(byte, kind, self);
  return !fault;
}

// An atomic operation tells what fences of its block came before, and learns what others had told here.
void exchange_knowledge(const void* word, const Thread& self) {
  Block& block = *self.block;
  const std::uint32_t fenced = std::max(self.fenced_epoch, block.fenced_epoch);
  const auto found = published.find(word);
  if (fenced == 0 && found == published.end()) return;
  std::map<unsigned, std::uint32_t>& told = found == published.end() ? published[word] : found->second;
  for (const auto& [other, epoch] : told) {
    Knowledge& known = block.known.try_emplace(other, Knowledge{}).first->second;
    if (epoch > known.epoch) known = {epoch, self.now()};
  }
  if (fenced > 0) told[block.index] = std::max(told[block.index], fenced);
}

void fence() {
  Thread& self = *current_thread();
  Block& block = *self.block;
  self.fenced_epoch = block.epoch;
  if (self.last_fence == block.epoch + 1) return;
  self.last_fence = block.epoch + 1;
  ++block.fences;
}

void forget_fences() { published.clear(); }

}  // namespace emulator
