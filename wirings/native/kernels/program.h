// A compact network as a list of steps over arrays; wirings/native/program.py writes it.
#pragma once

#include "head.h"
#include "maps.h"
#include "stem.h"

namespace wirings {

enum class Kind : int64_t {
  kStem,   // convolution, ReLU, 3x3 filters
  kNodes,  // sums over edges, ReLU, 3x3 filters
  kPool,   // sums over edges, ReLU, mean of each map
  kHead,   // classifier
};

// One step for a number of nodes. Offsets count from the start of the integers or of the values.
struct Step {
  Kind kind;
  int64_t nodes;
  int64_t height, width;        // of the maps that are summed; of the stem's output
  int64_t stride;               // of the filters that follow
  int64_t from, to;             // numbers of the buffers that are read and written
  int64_t from_nodes;           // nodes of the buffer that is read; of the head: features
  int64_t first;                // the first node that is written
  int64_t interleaved;          // the maps of an image group are next to each other where this step reads …
  int64_t interleaved_to;       // … and writes; such maps have their own buffers
  int64_t starts, sources;      // integers: start of each node's edges (one more at the end); their sources
  int64_t mask;                 // integers: clears the floats between rows
  int64_t weights;              // values: of the edges; of the stem (node, channel, 3, 3); of the head
  int64_t biases, bias_maps;    // values: by node, and as maps; maps: -1 if there are none
  int64_t filters;              // values: (nodes, 9)
  int64_t channels, in_stride;  // of the stem
  int64_t columns;              // of the head: classes, rounded up to a multiple of the tile
  int64_t half;                 // of the head: its weights are bfloat16, two per integer

  Shape shape() const { return {int(height), int(width)}; }
};
constexpr int kBuffers = 4;
constexpr int kFields = sizeof(Step) / sizeof(int64_t);

struct Program {
  const Step* steps;
  int count;
  const int32_t* integers;
  const float* values;
};

// Images of a group, which go through the network together, with small maps interleaved.
constexpr int kGroup = 4;

// Size of the workspace of `run`, in floats. They must be zero before the first call.
long workspace_floats(const Program& program, int images, int threads);

// Logits (images, classes) of a batch. `seconds`, if not null, receives the time of each step in the first thread,
// including the wait for the others.
void run(const Program& program, const Images& images, int count, float* workspace, int threads, float* logits,
         double* seconds = nullptr);

}  // namespace wirings
