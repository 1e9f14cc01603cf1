// Square filters of single maps.
#pragma once

#include <algorithm>

#include "activations.h"

namespace wirings {
namespace WIRINGS_TARGET {

// A map that is read or written: its first pixel, and floats from a row to the next.
struct In {
  const float* first;
  int64_t pitch;
};
struct Out {
  float* first;
  int64_t pitch, height, width;
  const int32_t* mask;  // of the map
};

struct Filter {
  const float* taps;  // (size, size)
  float bias;
  Activation activation;
};

// The last vector of a row reaches over its end. It is stored first, so that the vectors of the next row, which
// are stored later, overwrite it; the mask clears what is between the rows and below the map.
template <int kRows, bool kActivated>
inline void store_rows(const Vector (&totals)[kRows], Activation activation, Out out, int64_t place) {
#pragma GCC unroll 4
  for (int target = 0; target < kRows; ++target, place += out.pitch) {
    const Vector total = kActivated ? activate(totals[target], activation) : totals[target];
    store(out.first + place, masked(total, out.mask + place));
  }
}

// The taps of a filter in registers, as far as there are enough.
template <int kSize>
struct Taps {
  explicit Taps(const float* taps) {
#pragma GCC unroll 49
    for (int tap = 0; tap < kSize * kSize; ++tap) all[tap] = broadcast(taps[tap]);
  }
  Vector all[kSize * kSize];
};

// Arguments are copies, which no store changes.

// kRows output rows from `row` on, each from kSize input rows; an input row is loaded once for all of them.
template <int kSize, int kRows, bool kActivated>
inline void filter_rows(In in, const Taps<kSize>& taps, Vector bias, Activation activation, Out out, int64_t row) {
  constexpr int kHalf = kSize / 2;
  for (int64_t x = (vectors_of(out.width) - 1) * kLanes; x >= 0; x -= kLanes) {
    Vector totals[kRows];
#pragma GCC unroll 4
    for (int target = 0; target < kRows; ++target) totals[target] = bias;
    const float* from = in.first + (row - kHalf) * in.pitch + x - kHalf;
#pragma GCC unroll 12
    for (int line = 0; line < kSize + kRows - 1; ++line, from += in.pitch) {
#pragma GCC unroll 7
      for (int column = 0; column < kSize; ++column) {
        const Vector pixels = load(from + column);
#pragma GCC unroll 4
        for (int target = 0; target < kRows; ++target) {
          const int tap = line - target;
          if (tap >= 0 && tap < kSize) totals[target] += pixels * taps.all[tap * kSize + column];
        }
      }
    }
    store_rows<kRows, kActivated>(totals, activation, out, row * out.pitch + x);
  }
}

// The same by a filter of stride 2.
template <int kSize, int kRows, bool kActivated>
inline void filter_rows_by_two(In in, const Taps<kSize>& taps, Vector bias, Activation activation, Out out,
                               int64_t row) {
  constexpr int kHalf = kSize / 2;
  for (int64_t x = (vectors_of(out.width) - 1) * kLanes; x >= 0; x -= kLanes) {
    Vector totals[kRows];
#pragma GCC unroll 4
    for (int target = 0; target < kRows; ++target) totals[target] = bias;
    const float* from = in.first + (2 * row - kHalf) * in.pitch + 2 * x - kHalf;
#pragma GCC unroll 12
    for (int line = 0; line < 2 * (kRows - 1) + kSize; ++line, from += in.pitch) {
#pragma GCC unroll 4
      for (int pair = 0; pair < kSize; pair += 2) {  // columns pair and pair + 1
        const Vector low = load(from + pair), high = load(from + pair + kLanes);
        const Vector pixels[2] = {every_second<0>(low, high), every_second<1>(low, high)};
#pragma GCC unroll 2
        for (int odd = 0; odd < 2; ++odd) {
          if (pair + odd >= kSize) continue;
#pragma GCC unroll 4
          for (int target = 0; target < kRows; ++target) {
            const int tap = line - 2 * target;
            if (tap >= 0 && tap < kSize) totals[target] += pixels[odd] * taps.all[tap * kSize + pair + odd];
          }
        }
      }
    }
    store_rows<kRows, kActivated>(totals, activation, out, row * out.pitch + x);
  }
}

template <int kSize, bool kActivated>
void filter_map(In in, Filter filter, int64_t stride, Out out) {
  const Taps<kSize> taps(filter.taps);
  const Vector bias = broadcast(filter.bias);
  const Activation activation = filter.activation;
  int64_t row = 0;
  if (stride == 2) {
    for (; row + 2 <= out.height; row += 2)
      filter_rows_by_two<kSize, 2, kActivated>(in, taps, bias, activation, out, row);
    if (row < out.height) filter_rows_by_two<kSize, 1, kActivated>(in, taps, bias, activation, out, row);
    return;
  }
  for (; row + 4 <= out.height; row += 4) filter_rows<kSize, 4, kActivated>(in, taps, bias, activation, out, row);
  if (row + 2 <= out.height) {
    filter_rows<kSize, 2, kActivated>(in, taps, bias, activation, out, row);
    row += 2;
  }
  if (row < out.height) filter_rows<kSize, 1, kActivated>(in, taps, bias, activation, out, row);
}

template <int kSize>
void filter_map(In in, Filter filter, int64_t stride, Out out) {
  filter.activation == Activation::kNone ? filter_map<kSize, false>(in, filter, stride, out)
                                         : filter_map<kSize, true>(in, filter, stride, out);
}

inline void filter_map(int64_t size, In in, Filter filter, int64_t stride, Out out) {
  switch (size) {
    case 3: return filter_map<3>(in, filter, stride, out);
    case 5: return filter_map<5>(in, filter, stride, out);
    default: return filter_map<7>(in, filter, stride, out);
  }
}

// Maximum, or mean, of square windows. A row of the result is made from a row of the maxima or sums of each
// column, which `space` holds.
struct Window {
  int64_t size, stride, padding, height, width;  // height, width: of the map that is read
  int64_t operation;                             // see program.h

  // Floats of a row of columns, for a row of the result that ends with a full vector.
  int64_t floats(int64_t out_width) const {
    return padding + std::max(width, (vectors_of(out_width) + 1) * kLanes * stride + size);
  }
};

inline void pool_map(Window window, In in, float* space, Activation activation, Out out) {
  const bool maximum = window.operation == 0;
  const float empty = maximum ? -__builtin_inff() : 0.0f;
  const int64_t floats = window.floats(out.width);
  float* columns = space + window.padding;
  for (int64_t row = 0; row < out.height; ++row) {
    const int64_t first = row * window.stride - window.padding;
    const int64_t begin = std::max<int64_t>(first, 0), end = std::min(first + window.size, window.height);
    std::fill(space, space + floats, empty);
    for (int64_t line = begin; line < end; ++line) {
      const float* from = in.first + line * in.pitch;
      for (int64_t x = 0; x < window.width; ++x)
        columns[x] = maximum ? (columns[x] < from[x] || from[x] != from[x] ? from[x] : columns[x]) : columns[x] + from[x];
    }
    // As in store_rows: rows are stored in their order, each from its end.
    for (int64_t x = (vectors_of(out.width) - 1) * kLanes; x >= 0; x -= kLanes) {
      Vector total = broadcast(empty);
      for (int64_t column = 0; column < window.size; ++column) {
        const float* from = columns + x * window.stride + column - window.padding;
        Vector pixels;
        if (window.stride == 1)
          pixels = load(from);
        else if (window.stride == 2)
          pixels = every_second(from);
        else
          for (int lane = 0; lane < kLanes; ++lane) pixels[lane] = from[lane * window.stride];
        total = maximum ? (total < pixels || pixels != pixels ? pixels : total) : total + pixels;
      }
      if (!maximum)
        for (int lane = 0; lane < kLanes; ++lane) {
          const int64_t left = (x + lane) * window.stride - window.padding;
          const int64_t inside = std::min(left + window.size, window.width) - std::max<int64_t>(left, 0);
          const int64_t all_rows = std::min(first + window.size, window.height + window.padding) - first;
          const int64_t all = std::min(left + window.size, window.width + window.padding) - left;
          const int64_t count = window.operation == 1 ? (end - begin) * inside : all_rows * all;
          total[lane] /= float(std::max<int64_t>(count, 1));
        }
      const int64_t place = row * out.pitch + x;
      store(out.first + place, masked(activate(total, activation), out.mask + place));
    }
  }
}

}  // namespace WIRINGS_TARGET
}  // namespace wirings
