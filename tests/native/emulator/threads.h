// The threads of the grid that runs. A barrier ends an epoch of its block, __syncwarp a step of its warp.
#pragma once

#include <map>
#include <vector>

#include "fiber.h"
#include "kernel_side.h"

namespace emulator {

enum class State { kReady, kAtBarrier, kAtClusterBarrier, kInCollective, kDone };

// When something happened in a thread, in terms of barriers.
struct Moment {
  std::uint32_t thread = 0;  // its number; 0: never
  std::uint32_t epoch = 0, step = 0;
};

// A collective call that lanes are on their way to.
struct Warp {
  unsigned arrived = 0, lanes = 0;
  Collective kind{};
  Place place;
  std::uint64_t values[32];
  unsigned operands[32];
  std::uint32_t step = 0;
};

struct Block;

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  unsigned index = 0;        // in the block
  std::uint32_t number = 0;  // in the grid, from 1
  State state = State::kDone;
  Place waits_at;
  std::uint64_t result = 0;        // of the collective call
  std::uint32_t fenced_epoch = 0;  // what its block wrote in earlier epochs is behind a fence of this thread
  std::uint32_t last_fence = 0;    // 1 + the epoch of it

  Warp& warp() const;
  Moment now() const;
};

// What a thread knows of another block, as an atomic operation has told it.
struct Knowledge {
  std::uint32_t epoch;  // the writes of earlier epochs are visible
  Moment learnt;        // to this thread at once, to others of its block after a barrier
};

struct Block {
  unsigned index = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  unsigned live = 0, at_barrier = 0, fences = 0;  // threads
  bool vote = false, outcome = false;             // of the barrier that comes, and of the last one
  std::uint32_t epoch = 0, fenced_epoch = 0;
  std::map<unsigned, Knowledge> known;
  std::map<const char*, void*> shared;  // by declaration
};

inline Warp& Thread::warp() const { return block->warps[index / 32]; }

inline Moment Thread::now() const { return {number, block->epoch, warp().step}; }

// Null while no kernel runs.
Thread* current_thread();
unsigned threads_per_block();
std::uint32_t launch_number();

// Lets others run. The thread comes back once somebody has called `wake`, or in its turn.
void wait_as(State, Place);
void wake(Thread&);
void take_turns();

// A number below `limit`, by the seed.
unsigned draw_below(unsigned limit);

}  // namespace emulator
