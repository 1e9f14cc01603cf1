// A network as a list of steps over planar maps. wirings/native/program.py writes it; `check` verifies it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace wirings {

// Maps of one size. A slot holds the map of one channel, of one image, or of all images of a group.
//
// A map is planar: its rows one after another, `pitch` floats apart. `pad` zeros are right of each row, and are
// the zeros left of the next row; at least `pad` rows of zeros, and `pad` zeros, are above and below a map. Zeros
// between two slots belong to both. Steps write zeros where these zeros are, so they remain.
struct Geometry {
  int64_t height, width, pad;
  int64_t grouped;  // whether a slot holds the maps of all images of a group
  int64_t slots;
  int64_t reach;       // largest distance of a pixel that a sum reads behind that of its target, in floats
  int64_t row_reach;   // floats that windows read from the first pixel of the last row on

  int64_t pitch() const { return width + pad; }
  // Floats from an image's map to that of the next image of the group.
  int64_t image() const { return (height + pad) * pitch(); }
  // Floats from the first pixel to the last, of `images` images.
  int64_t run(int64_t images) const { return (images - 1) * image() + height * pitch() - pad; }
  int64_t gap() const { return pad * pitch() + pad; }
  // Floats from a slot to the next one. All vectors that are read or written for a map end within its slot, so that
  // no thread reads what another one writes, though it would not use it.
  int64_t stride(int64_t images) const {
    const int64_t last_row = (images - 1) * image() + (height - 1) * pitch();
    const int64_t read = std::max(rounded(run(images)) + reach, last_row + row_reach);
    return rounded(std::max({run(images) + gap(), last_row + rounded(width), read}));
  }
  // Floats before the first slot.
  int64_t lead() const { return rounded(gap()); }
  // Vectors that are read may end behind the last slot.
  int64_t floats(int64_t images) const { return lead() + slots * stride(images) + lead() + 4 * kAlignment; }

  static constexpr int64_t kAlignment = 16;  // floats of a cache line, and of the widest vector
  static int64_t rounded(int64_t floats) { return (floats + kAlignment - 1) / kAlignment * kAlignment; }
};

enum class Kind : int64_t {
  kImport,     // a tensor of the caller to maps
  kExport,     // maps to a tensor of the caller
  kSum,        // sums over edges: every convolution but depthwise ones; a filter of each map may follow
  kDepthwise,  // one filter for each map
  kPool,       // maximum or mean of windows
  kMean,       // mean of each map
  kAffine,     // scale · map + shift, by map
  kCombine,    // sum or product of two maps, or of a map and a number
  kPlace,      // pixels to other pixels of other maps
  kLinear,     // a matrix times the pixels of 1 × 1 maps
};
constexpr int64_t kKinds = 10;

enum class Activation : int64_t { kNone, kRelu, kRelu6, kHardswish, kHardsigmoid, kSilu, kSigmoid };
constexpr int64_t kActivations = 7;

// Fields of all kinds. Places are indices into the integers or values of the program; -1: there are none.
struct Step {
  Kind kind;
  int64_t from, to;        // geometries that are read and written
  int64_t count;           // maps that are written; export: read
  int64_t sources;         // integers: slot of each map that is read. Linear: `inputs` of them
  int64_t targets;         // integers: slot of each map that is written
  int64_t activation;      // of what is written
  int64_t weights;         // values. Depthwise: (count, size, size). Affine: (count).
                           // Linear: (columns / kHeadTile, inputs, kHeadTile)
  int64_t biases;          // values: (count)
  int64_t bias_maps;       // values: (count, height, width), of sums; added to the biases
  int64_t other, others;   // sum and combine: geometry, and slots in integers, of maps that are added
  int64_t operation;       // combine: 0 sum, 1 product. Pool: 0 maximum, 1 mean, 2 mean with padding counted.
                           // Place: 1 if pixels that are not written are set to zero first
  int64_t inputs;          // import and export: number of the tensor. Linear: features
  int64_t channels;        // import and export: channels of the tensor
  int64_t blocks, number;  // sum: integers (number, 5): first target, targets (1 to 4), first edge, edges, first weight
  int64_t edges, taps;     // sum: integers of all edges: source's slot; rows · 256 + columns, both + 128
  int64_t num_edges, num_weights;  // sum: of all blocks
  int64_t size, stride;    // depthwise, pool, filters after a sum: of the window, and its steps. Sum: 0 without filters
  int64_t filters, filter_biases, filter_activation;  // sum: values (count, size, size) and (count); activation
  int64_t padding;         // pool
  int64_t row, column, step;           // place: the first pixel that is read, and the step to the next
  int64_t to_row, to_column, to_step;  // place: the same of those written
  int64_t columns;         // linear: targets, rounded up to a multiple of kHeadTile; 0: the matrix is sparse
  int64_t halves;          // linear: integers: weights as bfloat16, two in each, in place of the values; -1: none
  int64_t starts;          // sparse linear: integers (count + 1): first edge of each target; `edges`: their features
  int64_t strip;           // sum: lines of 16 pixels of all maps that are summed before the next; 0: all
  int64_t ahead;           // sum: edges whose sources are fetched into the cache in advance
};
constexpr int kFields = sizeof(Step) / sizeof(int64_t);
constexpr int64_t kGroup = 4;  // images of a group, at most
constexpr int64_t kBlockFields = 5, kMaxTargets = 4, kHeadTile = 64;

inline int tap_rows(int32_t tap) { return tap / 256 - 128; }
inline int tap_columns(int32_t tap) { return tap % 256 - 128; }

struct Program {
  std::vector<Geometry> geometries;
  std::vector<Step> steps;
  std::vector<int32_t> integers;
  std::vector<float> values;
};

// Why the program cannot be run, or an empty text. A program that passes reads and writes within its arrays.
std::string check(const Program& program);

// Number of steps that are run image by image; those after them are run once for a group of images.
int steps_by_image(const Program& program);

}  // namespace wirings
