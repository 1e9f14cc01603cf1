// Sums over edges: vectors of pixels stay in registers while the edges are read.
#pragma once

#include <array>
#include <utility>

#include "activations.h"

namespace wirings {
namespace WIRINGS_TARGET {

// What all blocks of a sum share.
struct Sum {
  const float* data;    // the first slot of the sources
  const int32_t* mask;
  const float* biases;
  const float* maps;    // bias maps, or null, and floats from one to the next
  int64_t maps_stride;
  const float* added;   // the first slot of the maps that are added, or null
  const int32_t* added_slots;
  int64_t added_stride;
  float* to;            // the first slot of the targets
  const int32_t* to_slots;
  int64_t to_stride;
  bool rectified;
  int64_t ahead;        // edges whose sources are fetched into the cache in advance; 0: none
};

// A few targets that have the same sources. An edge's offset is the place of its pixel for the first pixel of the
// target, in floats from the first slot on.
struct Block {
  const int32_t* offsets;
  const float* weights;  // (edges, targets)
  int64_t edges;
  int64_t first;         // target
};

// Adds the sources of one target's edges, kVectors vectors each; `source(edge)` is where an edge reads.
template <int kVectors, typename Source>
inline void add_edges(Vector (&totals)[kVectors], const float* weights, int64_t begin, int64_t end, int64_t ahead,
                      const Source& source) {
  const auto add = [&](int64_t edge) {
    const float* from = source(edge);
    const Vector weight = broadcast(weights[edge]);
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) totals[v] += weight * load(from + v * kLanes);
  };
  int64_t edge = begin;
  if (ahead)
    for (; edge + ahead < end; ++edge) {
      const float* next = source(edge + ahead);
#pragma GCC unroll 16
      for (int line = 0; line < kVectors * kLanes; line += 16) __builtin_prefetch(next + line);
      add(edge);
    }
  for (; edge < end; ++edge) add(edge);
}

// The same for several targets with the same sources; `weights` (edges, targets).
template <int kTargets, int kVectors, typename Source>
inline void add_edges(Vector (&totals)[kTargets][kVectors], const float* weights, int64_t edges, const Source& source) {
  for (int64_t edge = 0; edge < edges; ++edge) {
    const float* from = source(edge);
    Vector pixels[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) pixels[v] = load(from + v * kLanes);
#pragma GCC unroll 4
    for (int t = 0; t < kTargets; ++t) {
      const Vector weight = broadcast(weights[kTargets * edge + t]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) totals[t][v] += weight * pixels[v];
    }
  }
}

// kVectors vectors of kTargets targets from pixel `first` on.
template <int kTargets, int kVectors>
void sum_tile(const Sum& sum, const Block& block, int64_t first) {
  Vector totals[kTargets][kVectors];
#pragma GCC unroll 4
  for (int t = 0; t < kTargets; ++t) {
    const Vector bias = broadcast(sum.biases[block.first + t]);
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) totals[t][v] = bias;
  }
  const float* data = sum.data + first;
  const auto source = [&](int64_t edge) { return data + block.offsets[edge]; };
  if constexpr (kTargets == 1)
    add_edges<kVectors>(totals[0], block.weights, 0, block.edges, sum.ahead, source);
  else
    add_edges<kTargets, kVectors>(totals, block.weights, block.edges, source);
#pragma GCC unroll 4
  for (int t = 0; t < kTargets; ++t) {
    const int64_t target = block.first + t;
    if (sum.maps) {
      const float* map = sum.maps + target * sum.maps_stride + first;
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) totals[t][v] += load(map + v * kLanes);
    }
    if (sum.added) {
      const float* map = sum.added + sum.added_slots[target] * sum.added_stride + first;
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) totals[t][v] += load(map + v * kLanes);
    }
    if (sum.rectified) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) totals[t][v] = relu(totals[t][v]);
    }
    float* to = sum.to + sum.to_slots[target] * sum.to_stride + first;
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) store(to + v * kLanes, masked(totals[t][v], sum.mask + first + v * kLanes));
  }
}

using SumTile = void (*)(const Sum&, const Block&, int64_t);

// Vectors that are summed at once, so that totals, pixels and a weight fit into the registers.
constexpr int tile_of(int targets) {
  constexpr int kOne = kRegisters == 32 ? 16 : 12;
  constexpr int kSome[] = {0, kOne, kRegisters == 32 ? 9 : 4, kRegisters == 32 ? 7 : 3, kRegisters == 32 ? 6 : 3};
  return kSome[targets];
}

template <int kTargets, int... kCounts>
constexpr std::array<SumTile, tile_of(kTargets) + 1> tiles_of(std::integer_sequence<int, kCounts...>) {
  return {nullptr, sum_tile<kTargets, kCounts + 1>...};
}

// Vectors [begin, end) of the pixels, in tiles of about equal size.
template <int kTargets>
void sum_vectors(const Sum& sum, const Block& block, int64_t begin, int64_t end) {
  constexpr int kTile = tile_of(kTargets);
  static constexpr auto tiles = tiles_of<kTargets>(std::make_integer_sequence<int, kTile>());
  for (int64_t left = (end - begin + kTile - 1) / kTile; left > 0; --left) {
    const int64_t count = (end - begin + left - 1) / left;
    tiles[count](sum, block, begin * kLanes);
    begin += count;
  }
}

inline void sum_block(const Sum& sum, const Block& block, int targets, int64_t begin, int64_t end) {
  switch (targets) {
    case 1: return sum_vectors<1>(sum, block, begin, end);
    case 2: return sum_vectors<2>(sum, block, begin, end);
    case 3: return sum_vectors<3>(sum, block, begin, end);
    default: return sum_vectors<4>(sum, block, begin, end);
  }
}

}  // namespace WIRINGS_TARGET
}  // namespace wirings
