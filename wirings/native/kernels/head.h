// The classifier: features of a few images times a matrix, which is read once for all of them.
#pragma once

#include <algorithm>

#include "vectors.h"

namespace wirings {

// Classes [x, x + kVectors * kLanes) of kImages images; `weights` (features, columns) are floats or bfloat16,
// `biases` (columns).
template <int kImages, int kVectors, typename Weight>
inline void head_tile(const float* features, int count, const Weight* weights, const float* biases, int columns, int x,
                      float* logits, int classes) {
  Vector totals[kImages][kVectors];
#pragma GCC unroll 4
  for (int image = 0; image < kImages; ++image)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) totals[image][v] = load(biases + x + v * kLanes);
  for (int feature = 0; feature < count; ++feature) {
    const Weight* row = weights + long(feature) * columns + x;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vector weight = load(row + v * kLanes);
#pragma GCC unroll 4
      for (int image = 0; image < kImages; ++image) totals[image][v] += weight * features[long(image) * count + feature];
    }
  }
  for (int image = 0; image < kImages; ++image)
    for (int v = 0; v < kVectors; ++v) {
      const int start = x + v * kLanes, number = std::min(kLanes, classes - start);
      if (number > 0) std::memcpy(logits + long(image) * classes + start, &totals[image][v], sizeof(float) * number);
    }
}

// Classes [begin, end) of `images` images; `columns` and both ends are multiples of the tile.
constexpr int kHeadTile = kLanes * (kRegisters == 32 ? 4 : 2);

template <typename Weight>
inline void head(const float* features, int images, int count, const Weight* weights, const float* biases, int columns,
                 int begin, int end, float* logits, int classes) {
  constexpr int kVectors = kHeadTile / kLanes;
  int image = 0;
  const auto all = [&](auto tile, int together) {
    for (; image + together <= images; image += together)
      for (int x = begin; x < end; x += kHeadTile)
        tile(features + long(image) * count, count, weights, biases, columns, x, logits + long(image) * classes, classes);
  };
  all(head_tile<4, kVectors, Weight>, 4);
  all(head_tile<1, kVectors, Weight>, 1);
}

}  // namespace wirings
