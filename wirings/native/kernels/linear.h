// A matrix times the features of a few images.
#pragma once

#include <algorithm>

#include "activations.h"

namespace wirings {
namespace WIRINGS_TARGET {

// kVectors vectors of targets from x on, in the tile of kHeadTile targets whose weights are `weights` (count,
// kHeadTile), as floats or bfloat16. `features` (images, count), `biases` (columns), `to` (images, columns).
template <int kImages, int kVectors, typename Weight>
inline void linear_tile(const float* features, int64_t count, const Weight* weights, const float* biases,
                        int64_t columns, int64_t x, float* to) {
  weights += x % kHeadTile;
  Vector totals[kImages][kVectors];
#pragma GCC unroll 4
  for (int image = 0; image < kImages; ++image)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) totals[image][v] = load(biases + x + v * kLanes);
  for (int64_t feature = 0; feature < count; ++feature) {
    const Weight* row = weights + feature * kHeadTile;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vector weight = load(row + v * kLanes);
#pragma GCC unroll 4
      for (int image = 0; image < kImages; ++image) totals[image][v] += weight * features[image * count + feature];
    }
  }
#pragma GCC unroll 4
  for (int image = 0; image < kImages; ++image)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(to + image * columns + x + v * kLanes, totals[image][v]);
}

// Targets [begin, end), multiples of kHeadTile, of all images; the matrix is read once for four of them.
template <typename Weight>
inline void linear(const float* features, int64_t images, int64_t count, const Weight* weights, const float* biases,
                   int64_t columns, int64_t begin, int64_t end, float* to) {
  constexpr int kSome = kRegisters == 32 ? 4 : 2, kOne = std::min<int>(kHeadTile / kLanes, 8);
  for (int64_t tile = begin; tile < end; tile += kHeadTile) {
    const Weight* own = weights + tile * count;
    int64_t image = 0;
    const auto all = [&](auto run, int64_t together, int64_t floats) {
      for (; image + together <= images; image += together)
        for (int64_t x = tile; x < tile + kHeadTile; x += floats)
          run(features + image * count, count, own, biases, columns, x, to + image * columns);
    };
    all(linear_tile<4, kSome, Weight>, 4, kSome * kLanes);
    all(linear_tile<1, kOne, Weight>, 1, kOne * kLanes);
  }
}

}  // namespace WIRINGS_TARGET
}  // namespace wirings
