// Runs grids: a few blocks at a time, whose threads take turns by chance.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <utility>

#include "cuda_runtime.h"
#include "memory.h"
#include "races.h"
#include "settings.h"
#include "threads.h"

EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

Settings settings;

namespace {

constexpr long kPrintedErrors = 10;
constexpr int kDeadlock = 3;  // exit status

const Launch* launch_now = nullptr;
void (*kernel_now)(void*) = nullptr;
void* arguments_now = nullptr;
std::uint32_t launches = 0;
Thread* running = nullptr;
std::vector<Thread*> ready, at_cluster_barrier;
std::uint64_t random_state = 1;
long errors = 0;

// Ends an epoch: all threads that are left have come.
void release_barrier(Block& block) {
  if (block.fences >= block.live) block.fenced_epoch = block.epoch + 1;
  block.fences = block.at_barrier = 0;
  ++block.epoch;
  block.outcome = std::exchange(block.vote, false);
  const Thread* first = nullptr;
  for (Thread& thread : block.threads) {
    if (thread.state != State::kAtBarrier) continue;
    if (first && thread.waits_at.line() != first->waits_at.line()) {
      error("threads of a block wait at different barriers: lines %u and %u", first->waits_at.line(), thread.waits_at.line());
    }
    first = &thread;
    wake(thread);
  }
}

// What any of these threads did is ordered before what they do from now on, without fences.
void end_epoch_of_cluster(const std::vector<Thread*>& all) {
  std::set<Block*> blocks;
  for (const Thread* thread : all) blocks.insert(thread->block);
  for (Block* block : blocks) ++block->epoch, block->fences = 0;
  for (Block* block : blocks) {
    for (const Block* other : blocks) {
      if (other != block) block->known[other->index] = {other->epoch, {0, block->epoch - 1, 0}};
    }
  }
}

void thread_main() {
  kernel_now(arguments_now);
  Thread& self = *running;
  Block& block = *self.block;
  self.state = State::kDone;
  --block.live;
  if (block.live > 0 && block.at_barrier == block.live) release_barrier(block);
  suspend_forever(self.fiber);
}

void begin(Block& block, unsigned index) {
  block = Block{};
  block.index = index;
  block.threads.resize(launch_now->threads);
  block.warps.resize((launch_now->threads + 31) / 32);
  block.live = launch_now->threads;
  for (unsigned i = 0; i < launch_now->threads; ++i) {
    Thread& thread = block.threads[i];
    thread.block = &block;
    thread.index = i;
    thread.number = index * launch_now->threads + i + 1;
    start(thread.fiber, thread_main);
    wake(thread);
  }
}

void end(Block& block) {
  for (const Warp& warp : block.warps) {
    if (warp.arrived != 0) error("lanes wait in a collective call, and the others are gone: line %u", warp.place.line());
  }
  for (Thread& thread : block.threads) give_stack_back(thread.fiber);
  for (const auto& [declaration, memory] : block.shared) remove_array(memory);
}

// Kernels whose grid has a thread for each item, up to a number of blocks that is never emulated.
bool strides_by_grid(const std::string& kernel) { return kernel == "order_kernel" || kernel == "mark_remaining_kernel"; }

Thread& pick_thread() {
  const std::size_t pick = settings.switch_every == 0 ? ready.size() - 1 : draw_below(static_cast<unsigned>(ready.size()));
  std::swap(ready[pick], ready.back());
  Thread& picked = *ready.back();
  ready.pop_back();
  return picked;
}

[[noreturn]] void report_deadlock(const std::vector<Block>& blocks) {
  for (const Block& block : blocks) {
    for (const Thread& thread : block.threads) {
      if (thread.state == State::kDone) continue;
      error("deadlock: block %u, thread %u waits at line %u", block.index, thread.index, thread.waits_at.line());
      std::exit(kDeadlock);
    }
  }
  std::abort();
}

}  // namespace

Thread* current_thread() { return running; }

unsigned threads_per_block() { return launch_now->threads; }

std::uint32_t launch_number() { return launches; }

unsigned draw_below(unsigned limit) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return static_cast<unsigned>((random_state >> 32) * limit >> 32);
}

void wake(Thread& thread) {
  thread.state = State::kReady;
  ready.push_back(&thread);
}

void wait_as(State state, Place place) {
  Thread& self = *running;
  self.state = state;
  self.waits_at = place;
  suspend(self.fiber);
}

void take_turns() {
  Thread& self = *running;
  wake(self);
  suspend(self.fiber);
}

void maybe_switch() {
  if (running && settings.switch_every != 0 && draw_below(settings.switch_every) == 0) take_turns();
}

bool barrier(bool vote, Place place) {
  Thread& self = *running;
  Block& block = *self.block;
  if (self.warp().arrived >> (self.index % 32) & 1) error("line %u: a barrier within a collective call", place.line());
  block.vote = block.vote || vote;
  self.state = State::kAtBarrier;
  self.waits_at = place;
  if (++block.at_barrier == block.live) release_barrier(block);  // wakes this thread with the others
  suspend(self.fiber);
  return block.outcome;
}

void cluster_barrier(Place place) {
  if (!launch_now->is_cluster) return error("line %u: the barrier of a cluster, and there is none", place.line());
  at_cluster_barrier.push_back(running);
  if (at_cluster_barrier.size() < std::size_t{launch_now->blocks} * launch_now->threads) {
    return wait_as(State::kAtClusterBarrier, place);
  }
  const std::vector<Thread*> all = std::exchange(at_cluster_barrier, {});
  end_epoch_of_cluster(all);
  for (Thread* thread : all) wake(*thread);
  suspend(running->fiber);
}

void run(const Launch& wanted, void (*kernel)(void*), void* arguments) {
  Launch launch = wanted;
  if (launch.blocks == 0 || launch.threads == 0 || launch.threads > 1024) {
    return error("%s is launched with %u blocks of %u threads", launch.kernel, launch.blocks, launch.threads);
  }
  if (settings.most_blocks != 0 && strides_by_grid(launch.kernel))
    launch.blocks = std::min(launch.blocks, settings.most_blocks);
  launch_now = &launch, kernel_now = kernel, arguments_now = arguments;
  ++launches;
  forget_fences();
  random_state = (settings.seed * 0x9E3779B97F4A7C15ull) ^ (launches * 0xD1B54A32D192ED03ull) ^ 0x5851F42D4C957F2Dull;
  for (int i = 0; i < 4; ++i) draw_below(1);
  gridDim.x = launch.blocks, blockDim.x = launch.threads;
  at_cluster_barrier.clear();
  const unsigned resident = launch.is_cluster ? launch.blocks : std::max(settings.resident_blocks, 1u);
  std::vector<Block> blocks(std::min(resident, launch.blocks));
  unsigned begun = 0, ended = 0;
  for (Block& block : blocks) begin(block, begun++);
  while (ended < launch.blocks) {
    if (ready.empty()) report_deadlock(blocks);
    running = &pick_thread();
    Block& block = *running->block;
    threadIdx.x = running->index, blockIdx.x = block.index;
    resume(running->fiber);
    if (block.live > 0 || running->state != State::kDone) continue;
    end(block);
    ++ended;
    if (begun < launch.blocks) begin(block, begun++);
  }
  running = nullptr;
}

void error(const char* format, ...) {
  if (++errors > kPrintedErrors) return;
  std::printf("EMULATOR: ");
  if (running) std::printf("%s, block %u, thread %u: ", launch_now->kernel, running->block->index, running->index);
  va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::printf("\n");
}

long num_errors() { return errors; }

}  // namespace emulator
