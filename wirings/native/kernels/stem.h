// The first convolution, 3x3, from images in memory to tiles of rows of the live nodes.
#pragma once

#include "maps.h"

namespace wirings {

// A batch of images, as floats (images, channels, height, width) or bytes (images, height, width, channels).
struct Images {
  const float* floats;
  const uint8_t* bytes;
  int channels, height, width;
  const float* scale;  // of bytes: value * scale[channel] + shift[channel]
  const float* shift;

  // One row of one channel as `to[0 .. width)`; all zero outside of the image.
  void row(int image, int channel, int row, float* to) const {
    if (row < 0 || row >= height) {
      std::memset(to, 0, sizeof(float) * width);
    } else if (floats) {
      std::memcpy(to, floats + ((long(image) * channels + channel) * height + row) * width, sizeof(float) * width);
    } else {
      const uint8_t* from = bytes + (long(image) * height + row) * width * channels + channel;
      for (int x = 0; x < width; ++x) to[x] = float(from[long(x) * channels]) * scale[channel] + shift[channel];
    }
  }
};

// Three input rows of every channel, each as the three lines that a filter's columns read: for output x, line k
// holds the input at stride * x + k - 1.
class StemRows {
 public:
  static long floats(int channels, int width) { return long(3 * channels) * line_floats(width) * 3 + row_floats(width); }

  StemRows(float* space, int channels, int stride, Shape out) : space_(space), channels_(channels), stride_(stride), out_(out) {}

  // Loads the input row at the lower end of output row `row`, and in the first call those above it.
  void advance(const Images& images, int image, int row, bool first) {
    for (int tap = first ? 0 : (stride_ == 2 ? 1 : 2); tap < 3; ++tap) {
      const int number = stride_ * row + tap - 1;
      for (int channel = 0; channel < channels_; ++channel) split(images, image, channel, number);
    }
  }
  const float* line(int channel, int row, int tap, int column) const {
    return slot(channel, stride_ * row + tap - 1) + column * line_floats(out_.width);
  }

 private:
  static long line_floats(int width) { return rounded_up(width, kLanes) + kLanes; }
  static long row_floats(int width) { return 2L * rounded_up(width, kLanes) + 4 * kLanes; }

  // A ring buffer: row `number` replaces row number - 3.
  float* slot(int channel, int number) const {
    return space_ + (long(channel) * 3 + (number + 3) % 3) * 3 * line_floats(out_.width);
  }
  void split(const Images& images, int image, int channel, int number) {
    float* row = space_ + 9L * channels_ * line_floats(out_.width) + kLanes;
    images.row(image, channel, number, row);
    std::memset(row + images.width, 0, sizeof(float) * kLanes);
    row[-1] = 0;
    for (int column = 0; column < 3; ++column) {
      float* line = slot(channel, number) + column * line_floats(out_.width);
      for (int x = 0; x < out_.width; x += kLanes)
        store(line + x, stride_ == 2 ? every_second(row + 2 * x + column - 1) : load(row + x + column - 1));
    }
  }

  float* space_;
  int channels_, stride_;
  Shape out_;
};

// One output row of kNodes nodes from x on, kVectors vectors.
template <int kNodes, int kVectors>
inline void stem_tile(const StemRows& rows, int channels, int row, int x, const float* weights, const float* biases, float* const* to) {
  Vector totals[kNodes][kVectors];
#pragma GCC unroll 4
  for (int node = 0; node < kNodes; ++node)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) totals[node][v] = broadcast(biases[node]);
  for (int channel = 0; channel < channels; ++channel)
    for (int tap = 0; tap < 9; ++tap) {
      const float* line = rows.line(channel, row, tap / 3, tap % 3) + x;
#pragma GCC unroll 4
      for (int node = 0; node < kNodes; ++node) {
        const Vector weight = broadcast(weights[(long(node) * channels + channel) * 9 + tap]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) totals[node][v] += weight * load(line + v * kLanes);
      }
    }
#pragma GCC unroll 4
  for (int node = 0; node < kNodes; ++node)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(to[node] + x + v * kLanes, relu(totals[node][v]));
}

// One output row of kNodes nodes and the zero behind it. Up to one vector beyond it is overwritten.
template <int kNodes>
inline void stem_row(const StemRows& rows, int channels, int row, int width, const float* weights, const float* biases, float* const* to) {
  constexpr int kVectors = kRegisters == 32 ? 7 : 3;
  int x = 0;
  for (; x + kVectors * kLanes <= width; x += kVectors * kLanes)
    stem_tile<kNodes, kVectors>(rows, channels, row, x, weights, biases, to);
  for (; x < width; x += kLanes) stem_tile<kNodes, 1>(rows, channels, row, x, weights, biases, to);
  for (int node = 0; node < kNodes; ++node) to[node][width] = 0;
}

}  // namespace wirings
