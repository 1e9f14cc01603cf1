// A node's sums in the cache, in tiles of rows, and the filters that follow.
#pragma once

#include <algorithm>

#include "depthwise.h"

namespace wirings {

// A node's tile of sums, and the two rows before it, which the filters read.
struct RowTile {
  Shape shape;
  int rows, images;

  int lead() const { return rounded_up(2 * shape.pitch() + 1, kLanes); }
  long floats() const {
    const int body = rows == shape.height ? shape.floats(images) : rows * shape.pitch();
    return lead() + rounded_up(body, kLanes) + 4 * kLanes;
  }
};

// A part of a step: a range of nodes, and a range of output rows.
struct Part {
  int begin, end;
  int first_row, last_row;  // last_row is excluded
};

// The rows that are summed for a part's output rows, tile by tile, and the output rows that each tile completes.
struct Walk {
  Shape shape;
  int stride, rows;
  Part part;

  int top() const { return std::max(0, stride * part.first_row - 1); }
  int bottom() const { return std::min(shape.height, stride * (part.last_row - 1) + 2); }
  int end(int y) const { return std::min(y + rows, bottom()); }
  int done(int y) const {
    if (y == top()) return part.first_row;
    return y == bottom() ? part.last_row : stride == 2 ? y / 2 : y - 1;
  }
  // Number of output rows before done(y) whose vectors would reach into the rows of the next part.
  int exact(int y) const {
    const Shape out = shape.halved(stride);
    if (part.last_row == out.height) return 0;
    const int reached = (rounded_up(out.width, kLanes) - 1) / out.pitch();
    return std::max(0, done(y) - (part.last_row - reached));
  }
};

// Clears the floats that a filter reads left of the first row, for this tile and the next one.
inline void clear_edges(const RowTile& tile, float* start) {
  start[-1] = 0;
  start[-2 * tile.shape.pitch() - 1] = 0;
}

// Filters the rows that the tile from row y on completes, and copies its last two rows for the next tile.
inline void filter_tile(const Walk& walk, int y, float* start, const float* zeros, const float* filter, float* to) {
  const int pitch = walk.shape.pitch(), end = walk.end(y);
  const Rows rows{start - long(y) * pitch, zeros, walk.shape.height, pitch};
  depthwise(rows, filter, walk.stride, to, walk.shape.halved(walk.stride), walk.done(y), walk.done(end),
            walk.exact(end));
  if (end < walk.bottom())
    std::memcpy(start - 2 * pitch, start + long(end - y - 2) * pitch, sizeof(float) * 2 * pitch);
}

}  // namespace wirings
