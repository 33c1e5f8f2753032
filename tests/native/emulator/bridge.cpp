// Lets the checks call infobatch::cuda while the kernels are compiled as infobatch_kernels: the inline functions of csrc/core
// have another form in them, and one program must not have both under one name. Compiled once for either side.
#if defined(infobatch)
#include "cuda_runtime.h"
#endif

#include "../../../csrc/backends.h"

#if defined(infobatch)
#define BRIDGE(function, Arguments)                                                                              \
  extern "C" int kernels_##function(const void* args, void* stream) {                                            \
    return static_cast<int>(infobatch::cuda::function(*static_cast<const infobatch::Arguments*>(args), stream)); \
  }
#else
#define BRIDGE(function, Arguments)                                                  \
  extern "C" int kernels_##function(const void* args, void* stream);                 \
  infobatch::Status infobatch::cuda::function(const Arguments& args, void* stream) { \
    return static_cast<Status>(kernels_##function(&args, stream));                   \
  }
#endif

BRIDGE(sum_scores, SumScores)
BRIDGE(mean_threshold, MeanThreshold)
BRIDGE(count_digits, DigitPass)
BRIDGE(narrow_quantiles, DigitPass)
BRIDGE(cut_by_importance, CutByImportance)
BRIDGE(score_range, ScoreRange)
BRIDGE(count_bins, CountBins)
BRIDGE(set_tiers, SetTiers)
BRIDGE(draw_plan, DrawPlan)
BRIDGE(index_bits, IndexBits)
BRIDGE(record, Record)
BRIDGE(look_up, LookUp)
BRIDGE(order, Order)
BRIDGE(mark_remaining, MarkRemaining)
