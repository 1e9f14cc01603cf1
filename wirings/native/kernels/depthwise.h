// 3x3 filters, one for each node.
#pragma once

#include "maps.h"

namespace wirings {

// Rows of one map as a filter reads them: rows outside of the map are zero. Every row can be read from one float
// before its start to two vectors beyond its end.
struct Rows {
  const float* first;  // row 0, or its position if it is not stored
  const float* zeros;
  int height, pitch;
  const float* operator[](int row) const { return row < 0 || row >= height ? zeros : first + long(row) * pitch; }
};

// Output rows `row` to row + kRows - 1, each from three input rows that are loaded once.
//
// The last vector of a row reaches over its end into the next row. It is stored first, so that the vectors of the
// next row overwrite it. With kExact nothing beyond the row is written.
template <int kRows, bool kExact = false>
inline void filtered_rows(const Rows& in, const Vector (&taps)[9], float* out, Shape shape, int row) {
  const float* lines[kRows + 2];
#pragma GCC unroll 8
  for (int line = 0; line < kRows + 2; ++line) lines[line] = in[row + line - 1];
  for (int x = rounded_up(shape.width, kLanes) - kLanes; x >= 0; x -= kLanes) {
    Vector totals[kRows] = {};
#pragma GCC unroll 8
    for (int line = 0; line < kRows + 2; ++line) {
      const Vector left = load(lines[line] + x - 1), middle = load(lines[line] + x), right = load(lines[line] + x + 1);
#pragma GCC unroll 3
      for (int tap = 0; tap < 3; ++tap) {
        const int target = line - tap;
        if (target < 0 || target >= kRows) continue;
        totals[target] += left * taps[3 * tap] + middle * taps[3 * tap + 1] + right * taps[3 * tap + 2];
      }
    }
#pragma GCC unroll 8
    for (int target = 0; target < kRows; ++target) {
      float* to = out + long(row + target) * shape.pitch() + x;
      kExact ? store_some(to, totals[target], shape.width - x) : store(to, totals[target]);
    }
  }
}

// The same by a filter of stride 2. Even and odd floats of each input row are separated.
template <int kRows, bool kExact = false>
inline void filtered_rows_by_two(const Rows& in, const Vector (&taps)[9], float* out, Shape shape, int row) {
  const float* lines[2 * kRows + 1];
#pragma GCC unroll 8
  for (int line = 0; line < 2 * kRows + 1; ++line) lines[line] = in[2 * row + line - 1];
  for (int x = rounded_up(shape.width, kLanes) - kLanes; x >= 0; x -= kLanes) {
    Vector totals[kRows] = {};
#pragma GCC unroll 8
    for (int line = 0; line < 2 * kRows + 1; ++line) {
      const float* from = lines[line] + 2 * x;
      const Vector low = load(from), high = load(from + kLanes);
      const Vector left = every_second(from - 1), middle = every_second<0>(low, high), right = every_second<1>(low, high);
#pragma GCC unroll 2
      for (int target = (line - 1) / 2; target <= line / 2; ++target) {
        const int tap = line - 2 * target;
        if (target >= kRows || tap > 2) continue;
        totals[target] += left * taps[3 * tap] + middle * taps[3 * tap + 1] + right * taps[3 * tap + 2];
      }
    }
#pragma GCC unroll 8
    for (int target = 0; target < kRows; ++target) {
      float* to = out + long(row + target) * shape.pitch() + x;
      kExact ? store_some(to, totals[target], shape.width - x) : store(to, totals[target]);
    }
  }
}

// Output rows `begin` to `end` of a map; `shape` is that of the output. If another thread writes the rows from
// `end` on, the last `exact` rows do not touch them.
inline void depthwise(const Rows& in, const float* filter, int stride, float* out, Shape shape, int begin, int end,
                      int exact) {
  Vector taps[9];
  for (int tap = 0; tap < 9; ++tap) taps[tap] = broadcast(filter[tap]);
  int row = begin;
  const int last = end;
  end = std::max(begin, end - exact);
  if (stride == 2) {
    for (; row + 2 <= end; row += 2) filtered_rows_by_two<2>(in, taps, out, shape, row);
    for (; row < end; ++row) filtered_rows_by_two<1>(in, taps, out, shape, row);
    for (; row < last; ++row) filtered_rows_by_two<1, true>(in, taps, out, shape, row);
    return;
  }
  for (; row + 4 <= end; row += 4) filtered_rows<4>(in, taps, out, shape, row);
  for (; row < end; ++row) filtered_rows<1>(in, taps, out, shape, row);
  for (; row < last; ++row) filtered_rows<1, true>(in, taps, out, shape, row);
}

}  // namespace wirings
