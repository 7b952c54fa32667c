#pragma once
#include "element.cuh"

// Activations by number: 0 none, 1 ReLU, 2 ReLU6, 3 SiLU, 4 hard swish, 5 GELU. NaN stays NaN.
template <int KIND>
DEVICE float activate(float v) {
  if constexpr (KIND == 1) return v < 0.0f ? 0.0f : v;
  if constexpr (KIND == 2) return v < 0.0f ? 0.0f : v > 6.0f ? 6.0f : v;
  if constexpr (KIND == 3) return v / (1.0f + __expf(-v));
  if constexpr (KIND == 4) return v * (v < -3.0f ? 0.0f : v > 3.0f ? 6.0f : v + 3.0f) / 6.0f;
  if constexpr (KIND == 5) return 0.5f * v * (1.0f + erff(v * 0.70710678f));
  return v;
}
