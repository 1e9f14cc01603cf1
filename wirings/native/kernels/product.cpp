// A single product, for networks whose norms are not part of the program.
#include "product.h"

#include "threads.h"

namespace wirings {
namespace {

constexpr long kPixels = 8 * kLanes;  // pixels of all sources that stay in the cache during the loop over targets

void multiply_strip(const Matrix& matrix, const Sources& sources, long first, long end, int target, float* to) {
  const int start = matrix.starts[target];
  const Edges edges{matrix.columns + start, matrix.weights + start, matrix.starts[target + 1] - start, 0, nullptr};
  float* row = to + target * sources.node;
  const int vectors = (end - first) / kLanes;
  sum_edges(edges, sources, first, vectors, nullptr, row + first);
  for (long pixel = first + long(vectors) * kLanes; pixel < end; ++pixel) {
    float total = 0;
    for (int edge = 0; edge < edges.count; ++edge)
      total += edges.weights[edge] * sources.data[edges.sources[edge] * sources.node + pixel];
    row[pixel] = total;
  }
}

}  // namespace

void multiply(const Matrix& matrix, const float* data, long pixels, float* to, int threads) {
  const Sources sources{data, pixels};
  const long strips = (pixels + kPixels - 1) / kPixels;
  const bool by_strips = strips >= threads;
  const auto share = [&](long count, int number) { return count * number / threads; };
  const auto multiply_part = [&](int part) {
    const long first = by_strips ? share(strips, part) : 0, last = by_strips ? share(strips, part + 1) : strips;
    const int begin = by_strips ? 0 : share(matrix.targets, part);
    const int end = by_strips ? matrix.targets : share(matrix.targets, part + 1);
    for (long strip = first; strip < last; ++strip)
      for (int target = begin; target < end; ++target)
        multiply_strip(matrix, sources, strip * kPixels, std::min(pixels, (strip + 1) * kPixels), target, to);
  };
  Tasks tasks(1, threads);
  in_parallel(threads, [&](int thread) { tasks.run(0, thread, multiply_part); });
}

}  // namespace wirings
