// A node's sums in the cache, strip by strip of rows, and the filters that follow right away.
#pragma once

#include <algorithm>

#include "depthwise.h"

namespace wirings {

// A node's strip of sums, and the two rows before it, as the filters that follow read them.
struct Strip {
  Shape shape;
  int rows, images;

  int lead() const { return rounded_up(2 * shape.pitch() + 1, kLanes); }
  long floats() const {
    const int body = rows == shape.height ? shape.floats(images) : rows * shape.pitch();
    return lead() + rounded_up(body, kLanes) + 4 * kLanes;
  }
};

// A part of a step: some nodes, and some rows of what it writes.
struct Part {
  int begin, end;
  int first_row, last_row;  // up to and without
};

// The rows that are summed for a part's output rows, strip by strip, and which of those each strip completes.
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
  // How many of the output rows before done(y) have vectors that would reach into the rows of the next part.
  int exact(int y) const {
    const Shape out = shape.halved(stride);
    if (part.last_row == out.height) return 0;
    const int reached = (rounded_up(out.width, kLanes) - 1) / out.pitch();
    return std::max(0, done(y) - (part.last_row - reached));
  }
};

// What a filter reads left of the first row, now and when it will have moved up.
inline void clear_edges(const Strip& strip, float* start) {
  start[-1] = 0;
  start[-2 * strip.shape.pitch() - 1] = 0;
}

// Filters the rows that the strip from row y on completes, and keeps its last two for the next one.
inline void filter_strip(const Walk& walk, int y, float* start, const float* zeros, const float* filter, float* to) {
  const int pitch = walk.shape.pitch(), end = walk.end(y);
  const Rows rows{start - long(y) * pitch, zeros, walk.shape.height, pitch};
  depthwise(rows, filter, walk.stride, to, walk.shape.halved(walk.stride), walk.done(y), walk.done(end),
            walk.exact(end));
  if (end < walk.bottom())
    std::memcpy(start - 2 * pitch, start + long(end - y - 2) * pitch, sizeof(float) * 2 * pitch);
}

}  // namespace wirings
