// Order: positions of the epoch -> sample ids, a thread for each.
#include "parallel.cuh"

namespace infobatch::cuda {
namespace {

constexpr int kOrderBlock = 256;

// Position -> local slot, which exists whatever the directory holds: the permutation of others need not end.
__device__ std::uint64_t slot_of_position(const EpochOrder& epoch, std::uint64_t position) {
  const std::uint64_t kept = epoch.shuffle.size;
  const std::uint64_t rank = permute(epoch.shuffle, position < kept ? position : position % kept);
  const std::uint64_t slot = static_cast<std::uint64_t>(select_slot(epoch.kept, static_cast<std::int64_t>(rank)));
  const std::uint64_t last_slot = static_cast<std::uint64_t>(epoch.shard.num_slots - 1);
  return slot < last_slot ? slot : last_slot;
}

// `remaining` stands apart from args, as args.remaining is of the host. Its words are null where all positions remain.
__global__ void __launch_bounds__(kOrderBlock) order_kernel(Order args, BitIndex remaining) {
  for (std::int64_t i = thread_in_grid(); i < args.count; i += threads_in_grid()) {
    const std::int64_t place = args.start + i;
    const std::int64_t position = remaining.words ? select_slot(remaining, place) : place;
    const std::uint64_t slot = slot_of_position(args.epoch, static_cast<std::uint64_t>(position));
    const std::uint64_t first_slot = static_cast<std::uint64_t>(args.epoch.shard.first_slot);
    args.ids[i] = static_cast<std::int64_t>(unpermute(args.epoch.shard.deal, first_slot + slot));
  }
}

// A warp makes four rows. The padded marks are a whole number of blocks, so all lanes vote.
__global__ void __launch_bounds__(kOrderBlock) mark_remaining_kernel(MarkRemaining args, std::int64_t num_marks) {
  const std::int64_t positions = static_cast<std::int64_t>(args.epoch.shuffle.size);
  for (std::int64_t i = thread_in_grid(); i < num_marks; i += threads_in_grid()) {
    bool remains = false;
    if (i < positions) {
      const std::uint64_t slot = slot_of_position(args.epoch, static_cast<std::uint64_t>(i));
      remains = (mark_at(args.marks, slot) & kVisitedMark) == 0;
    }
    const std::uint32_t of_warp = __ballot_sync(kAllLanes, remains);
    if (i % kRowSlots == 0) {
      const std::uint8_t of_row = static_cast<std::uint8_t>(of_warp >> (i % kWarp));
      reinterpret_cast<std::uint32_t*>(args.remaining)[i / kRowSlots] = kept_marks(of_row);
    }
  }
}

static_assert(kBlockMarks % kWarp == 0 && kOrderBlock % kWarp == 0);

}  // namespace

Status order(const Order& args, void* stream) {
  if (args.count == 0) return Status::kOk;
  const BitIndex remaining = args.remaining ? *args.remaining : BitIndex{};
  order_kernel<<<blocks_for(args.count, kOrderBlock), kOrderBlock, 0, stream_of(stream)>>>(args, remaining);
  return launched();
}

Status mark_remaining(const MarkRemaining& args, void* stream) {
  const std::int64_t marks = num_blocks(static_cast<std::int64_t>(args.epoch.shuffle.size)) * kBlockMarks;
  if (marks == 0) return Status::kOk;
  mark_remaining_kernel<<<blocks_for(marks, kOrderBlock), kOrderBlock, 0, stream_of(stream)>>>(args, marks);
  return launched();
}

}  // namespace infobatch::cuda
