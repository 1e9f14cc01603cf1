// Sums over a node's edges: vectors of pixels stay in registers while the edges are read.
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "vectors.h"

namespace wirings {

// The edges of one target node, and its bias.
struct Edges {
  const int32_t* sources;
  const float* weights;
  int count;
  float bias;
  const float* bias_map;  // replaces `bias` if not null
};

// The maps of the sources, `node` floats apart.
struct Sources {
  const float* data;
  long node;
};

constexpr int kTile = kRegisters == 32 ? 16 : 12;  // vectors summed at once; one register holds the weight

// kVectors vectors of pixels from `first` on. With a mask, max(0, sum) where its bits are set, else 0.
template <int kVectors>
void sum_tile(const Edges& edges, const Sources& sources, long first, const int32_t* mask, float* to) {
  Vector totals[kVectors];
  for (int v = 0; v < kVectors; ++v)
    totals[v] = edges.bias_map ? load(edges.bias_map + first + v * kLanes) : broadcast(edges.bias);
  const float* data = sources.data + first;
  for (int edge = 0; edge < edges.count; ++edge) {
    const float* source = data + edges.sources[edge] * sources.node;
    const Vector weight = broadcast(edges.weights[edge]);
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) totals[v] += weight * load(source + v * kLanes);
  }
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v)
    store(to + v * kLanes, mask ? masked(relu(totals[v]), mask + first + v * kLanes) : totals[v]);
}

using SumTile = void (*)(const Edges&, const Sources&, long, const int32_t*, float*);

template <int... kCounts>
constexpr std::array<SumTile, kTile + 1> all_tiles(std::integer_sequence<int, kCounts...>) {
  return {nullptr, sum_tile<kCounts + 1>...};
}

// `vectors` vectors of pixels from `first` on, in tiles of about equal size.
inline void sum_edges(const Edges& edges, const Sources& sources, long first, int vectors, const int32_t* mask,
                      float* to) {
  static constexpr auto tiles = all_tiles(std::make_integer_sequence<int, kTile>());
  for (int left = (vectors + kTile - 1) / kTile; left > 0; --left) {
    const int count = (vectors + left - 1) / left;
    tiles[count](edges, sources, first, mask, to);
    first += long(count) * kLanes;
    to += long(count) * kLanes;
    vectors -= count;
  }
}

// (targets, pixels) = weights in compressed rows times (nodes, pixels).
struct Matrix {
  const int32_t *starts, *columns;
  const float* weights;
  int targets;
};
void multiply(const Matrix& matrix, const float* sources, long pixels, float* to, int threads);

}  // namespace wirings
