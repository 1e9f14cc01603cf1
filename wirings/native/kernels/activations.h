// Activations of vectors. NaN stays NaN.
#pragma once

#include "program.h"
#include "vectors.h"

namespace wirings {
namespace WIRINGS_TARGET {

inline Vector relu(Vector x) { return x < 0.0f ? Vector{} : x; }
inline Vector at_most(Vector x, float limit) { return x > limit ? broadcast(limit) : x; }

// e to the power of x, to two units in the last place; x is clipped to ±87, where float ends.
inline Vector exponential(Vector x) {
  x = x > 87.0f ? broadcast(87.0f) : x;
  x = x < -87.0f ? broadcast(-87.0f) : x;
  const Vector scaled = x * 1.44269504f;  // x = n ln 2 + r, with n an integer and |r| at most ln 2 / 2
  const Bits n = __builtin_convertvector(scaled + (scaled < 0.0f ? broadcast(-0.5f) : broadcast(0.5f)), Bits);
  const Vector count = __builtin_convertvector(n, Vector);
  const Vector r = (x - count * 0.693359375f) + count * 2.12194440e-4f;
  // The Taylor polynomial of degree 7: its error is below 2e-8 there.
  Vector y = r * (1 / 5040.0f) + 1 / 720.0f;
  y = y * r + 1 / 120.0f;
  y = y * r + 1 / 24.0f;
  y = y * r + 1 / 6.0f;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  return (Vector)((Bits)y + (n << 23));
}

inline Vector sigmoid(Vector x) { return 1.0f / (1.0f + exponential(-x)); }

inline Vector activate(Vector x, Activation activation) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return relu(x);
    case Activation::kRelu6: return at_most(relu(x), 6);
    case Activation::kHardswish: return x * at_most(relu(x + 3.0f), 6) * (1 / 6.0f);
    case Activation::kHardsigmoid: return at_most(relu(x + 3.0f), 6) * (1 / 6.0f);
    case Activation::kSilu: return x * sigmoid(x);
    case Activation::kSigmoid: return sigmoid(x);
  }
  return x;
}

}  // namespace WIRINGS_TARGET
}  // namespace wirings
