// Memory layout of maps.
//
// A node's map is planar: its rows one after another, `pitch` floats apart. The pitch is one more than the width;
// the float between two rows is the zero that a 3x3 filter reads right of one row and left of the next. Sources
// of products hold any finite number there. A map begins at a multiple of the vector width, and vectors that reach
// over its end stay in it. Small maps are interleaved: those of several images of one node are next to each other,
// so that vectors are full.
#pragma once

#include <algorithm>

#include "vectors.h"

namespace wirings {

struct Shape {
  int height, width;

  int pitch() const { return width + 1; }
  int rows() const { return height * pitch(); }
  // Floats from one image's map to the next one's, where they are interleaved.
  int image() const { return rows(); }
  // Floats of a node's maps of `images` images.
  int floats(int images) const {
    const int last_row = (height - 1) * pitch() + rounded_up(width, kLanes);
    return rounded_up((images - 1) * image() + std::max(rows(), last_row), kLanes);
  }
  Shape halved(int stride) const { return {(height + stride - 1) / stride, (width + stride - 1) / stride}; }
};

// Nodes' maps in the workspace.
struct Maps {
  float* data;
  Shape shape;
  int images;  // interleaved
  long node() const { return shape.floats(images); }
  float* of(long number, int image = 0) const { return data + number * node() + long(image) * shape.image(); }
};

}  // namespace wirings
