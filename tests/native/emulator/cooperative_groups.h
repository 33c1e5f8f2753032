// Clusters, as far as the kernels use them.
#pragma once

#include "kernel_side.h"

namespace cooperative_groups {

struct cluster_group {
  void sync(emulator::Place here = emulator::Place::current()) const { emulator::cluster_barrier(here); }
};

inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
