// Scores as moving averages: momentum * old + (1 - momentum) * loss, of three roundings to float32. Nothing may be fused.
#pragma once

#include "float_order.h"

namespace infobatch {

// Asked of the bits, as a thread that flushes subnormal numbers takes a tiny momentum for zero.
IB_HD bool blends(double momentum) {
  std::uint64_t bits;
  memcpy(&bits, &momentum, sizeof bits);
  return bits << 1 != 0;
}

// The score of a sample that had `old`, which is none if it is unseen. Not finite if the loss is not, and where it overflows.
IB_HD float blend(double momentum, float old, float loss) {
  if (!is_finite_bits(bits_of(old))) return loss;
  const float of_old = static_cast<float>(momentum) * old, of_loss = static_cast<float>(1.0 - momentum) * loss;
  return of_old + of_loss;
}

}  // namespace infobatch
