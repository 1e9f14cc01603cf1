// What a thread needs to run its part of a step.
#pragma once

#include "program.h"

namespace wirings {

// A program for groups of some number of images, with all places in memory.
struct Prepared {
  int images;                              // of a group
  std::vector<int64_t> starts;             // of each geometry's first slot, in floats from the start of a workspace
  int64_t floats;                          // of a workspace
  std::vector<std::vector<int32_t>> masks;    // of each geometry: all bits set at pixels, else 0
  std::vector<std::vector<int32_t>> offsets;  // of each sum's edges
  std::vector<std::vector<float>> bias_maps;  // of sums that have them: (count, stride of a slot)
  int64_t scratch;                         // floats of a thread

  int images_of(const Geometry& geometry) const { return geometry.grouped ? images : 1; }
};

Prepared prepare(const Program& program, int images);

// A tensor of the caller: floats (images, channels, height, width), or bytes (images, height, width, channels),
// whose value is byte * scale[channel] + shift[channel].
struct Input {
  const float* floats;
  const uint8_t* bytes;
  const float* scale;
  const float* shift;
};

// A step of one group.
struct Call {
  const Program& program;
  const Prepared& prepared;
  const Input* inputs;
  float* const* outputs;
  float* workspace;
  float* scratch;      // of this thread
  int64_t first_image; // of the group in the caller's tensors
};

// Runs part `part` of `parts` of a step; `image` is that of the group, for steps that run image by image.
using RunPart = void (*)(const Call& call, int step, int image, int part, int parts);

// Weights (targets, sources) in compressed rows.
struct Matrix {
  const int32_t *starts, *columns;
  const float* weights;
  int64_t targets;
};

// Part `part` of `parts` of the matrix times (sources, pixels).
using MultiplyPart = void (*)(const Matrix& matrix, const float* sources, int64_t pixels, float* to, int part,
                              int parts);

// The kernels for this processor, and their name.
struct Target {
  const char* name;
  int lanes;
  RunPart run_part;
  MultiplyPart multiply_part;
};
const Target& best_target();

}  // namespace wirings
