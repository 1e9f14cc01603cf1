// The steps of a program, compiled for one kind of processor.
#include "steps.h"

#include <algorithm>
#include <cmath>

#include "filters.h"
#include "linear.h"
#include "sums.h"

namespace wirings {
namespace WIRINGS_TARGET {
namespace {

struct Range {
  int64_t begin, end;
};

Range share(int64_t count, int part, int parts) { return {count * part / parts, count * (part + 1) / parts}; }

// A part of a step, with names for what it reads and writes.
class Part {
 public:
  Part(const Call& call, int number, int image, int part, int parts)
      : call_(call), step_(call.program.steps[number]), number_(number), image_(image), part_(part), parts_(parts) {}

  void run() const {
    switch (step_.kind) {
      case Kind::kImport: return import_maps();
      case Kind::kExport: return export_maps();
      case Kind::kSum: return sums();
      case Kind::kDepthwise: return depthwise();
      case Kind::kPool: return pool();
      case Kind::kMean: return mean();
      case Kind::kAffine: return affine();
      case Kind::kCombine: return combine();
      case Kind::kPlace: return place();
      case Kind::kLinear: return linear_layer();
    }
  }

 private:
  const Geometry& geometry(int64_t number) const { return call_.program.geometries[number]; }
  const int32_t* ints(int64_t first) const { return call_.program.integers.data() + first; }
  const float* values(int64_t first) const { return call_.program.values.data() + first; }
  const int32_t* mask(int64_t number) const { return call_.prepared.masks[number].data(); }
  int64_t stride(int64_t number) const { return geometry(number).stride(call_.prepared.images_of(geometry(number))); }
  float* start(int64_t number) const { return call_.workspace + call_.prepared.starts[number]; }
  Range maps() const { return share(step_.count, part_, parts_); }

  // Images that this part runs: of the group, or one.
  Range images() const {
    const int64_t read = step_.kind == Kind::kImport ? step_.to : step_.from;
    return geometry(read).grouped ? Range{0, call_.prepared.images} : Range{image_, image_ + 1};
  }
  // The map of an image of the group in a slot.
  float* map(int64_t number, int64_t slot, int64_t image) const {
    const Geometry& maps = geometry(number);
    return start(number) + slot * stride(number) + (maps.grouped ? image * maps.image() : 0);
  }
  float* source(int64_t index, int64_t image) const { return map(step_.from, ints(step_.sources)[index], image); }
  float* target(int64_t index, int64_t image) const { return map(step_.to, ints(step_.targets)[index], image); }
  // Floats of the images' maps, one after another, which a step treats as one.
  int64_t run_floats() const {
    const Geometry& from = geometry(step_.from);
    return from.run(from.grouped ? call_.prepared.images : 1);
  }
  Out out(int64_t index, int64_t image) const {
    const Geometry& to = geometry(step_.to);
    return {target(index, image), to.pitch(), to.height, to.width, mask(step_.to)};
  }
  In in(int64_t index, int64_t image) const { return {source(index, image), geometry(step_.from).pitch()}; }

  void import_maps() const {
    const Geometry& to = geometry(step_.to);
    const Input& input = call_.inputs[step_.inputs];
    const Range range = maps(), all = images();
    for (int64_t image = all.begin; image < all.end; ++image)
      for (int64_t index = range.begin; index < range.end; ++index) {
        const int64_t channel = ints(step_.edges)[index], number = call_.first_image + image;
        float* map = target(index, image);
        for (int64_t row = 0; row < to.height; ++row, map += to.pitch()) {
          if (input.floats) {
            const int64_t place = (number * step_.channels + channel) * to.height + row;
            std::memcpy(map, input.floats + place * to.width, sizeof(float) * to.width);
            continue;
          }
          const uint8_t* from = input.bytes + (number * to.height + row) * to.width * step_.channels + channel;
          const float scale = input.scale[channel], shift = input.shift[channel];
          for (int64_t x = 0; x < to.width; ++x) map[x] = float(from[x * step_.channels]) * scale + shift;
        }
      }
  }

  void export_maps() const {
    const Geometry& from = geometry(step_.from);
    const Range range = maps(), all = images();
    for (int64_t image = all.begin; image < all.end; ++image)
      for (int64_t index = range.begin; index < range.end; ++index) {
        const int64_t channel = ints(step_.edges)[index], number = call_.first_image + image;
        const float* map = source(index, image);
        float* to = call_.outputs[step_.inputs] + (number * step_.channels + channel) * from.height * from.width;
        for (int64_t row = 0; row < from.height; ++row)
          std::memcpy(to + row * from.width, map + row * from.pitch(), sizeof(float) * from.width);
      }
  }

  // Maps with many pixels are divided by pixels, others by targets.
  void sums() const {
    if (step_.size) return filtered_sums();
    const int64_t vectors = vectors_of(run_floats()), lines = vectors * kLanes / Geometry::kAlignment;
    constexpr int kPerLine = Geometry::kAlignment / kLanes;
    const bool by_pixels = lines >= 8 * parts_;
    const Range blocks = by_pixels ? Range{0, step_.number} : blocks_of_part();
    Range range = by_pixels ? share(lines, part_, parts_) : Range{0, lines};
    range = {range.begin * kPerLine, by_pixels && part_ + 1 < parts_ ? range.end * kPerLine : vectors};
    if (!by_pixels) range.end = vectors;
    const int64_t strip = step_.strip ? step_.strip * kPerLine : vectors;
    const Sum sum = shared_by_blocks();
    const int32_t* offsets = call_.prepared.offsets[number_].data();
    for (int64_t begin = range.begin; begin < range.end; begin += strip) {
      const int64_t end = std::min(begin + strip, range.end);
      for (int64_t number = blocks.begin; number < blocks.end; ++number) {
        const int32_t* fields = ints(step_.blocks + kBlockFields * number);
        const Block block{offsets + fields[2], values(step_.weights) + fields[4], fields[3], fields[0]};
        sum_block(sum, block, fields[1], begin, end);
        if (sum.rectified || step_.activation == int64_t(Activation::kNone)) continue;
        for (int64_t t = 0; t < fields[1]; ++t) activate_run(target(fields[0] + t, image_), sum.mask, begin, end);
      }
    }
  }

  // Each block's maps are summed in the cache, where their filters read them.
  void filtered_sums() const {
    const Geometry& from = geometry(step_.from);
    const int64_t vectors = vectors_of(run_floats()), floats = stride(step_.from), lead = from.lead();
    Sum sum = shared_by_blocks();
    const int32_t slots[kMaxTargets] = {0, 1, 2, 3};
    float* const maps = call_.scratch + lead;
    sum.to_stride = floats + lead;
    for (int64_t t = 0; t < kMaxTargets; ++t) {  // the zeros around each map; sums write all between
      float* map = maps + t * sum.to_stride;
      std::fill(map - lead, map, 0.0f);
      std::fill(map + vectors * kLanes, map + floats, 0.0f);
    }
    std::fill(maps + kMaxTargets * sum.to_stride - lead, maps + kMaxTargets * sum.to_stride, 0.0f);
    const Range blocks = blocks_of_part(), all = images();
    const int32_t* offsets = call_.prepared.offsets[number_].data();
    for (int64_t number = blocks.begin; number < blocks.end; ++number) {
      const int32_t* fields = ints(step_.blocks + kBlockFields * number);
      const int64_t first = fields[0], targets = fields[1];
      sum.to_slots = slots - first;
      sum.to = maps;
      sum_block(sum, {offsets + fields[2], values(step_.weights) + fields[4], fields[3], first}, targets, 0, vectors);
      for (int64_t t = 0; t < targets; ++t) {
        float* map = maps + t * sum.to_stride;
        if (!sum.rectified && step_.activation != int64_t(Activation::kNone))
          activate_run(map, sum.mask, 0, vectors);
        const Filter filter{values(step_.filters) + (first + t) * step_.size * step_.size,
                            values(step_.filter_biases)[first + t], Activation(step_.filter_activation)};
        for (int64_t image = all.begin; image < all.end; ++image) {
          const float* own = map + (from.grouped ? image * from.image() : 0);
          filter_map(step_.size, {own, from.pitch()}, filter, step_.stride, out(first + t, image));
        }
      }
    }
  }

  Sum shared_by_blocks() const {
    const std::vector<float>& maps = call_.prepared.bias_maps[number_];
    const bool adds = step_.others >= 0;
    return {start(step_.from),
            mask(step_.from),
            values(step_.biases),
            maps.empty() ? nullptr : maps.data(),
            stride(step_.from),
            adds ? map(step_.other, 0, image_) : nullptr,
            adds ? ints(step_.others) : nullptr,
            adds ? stride(step_.other) : 0,
            map(step_.to, 0, image_),
            ints(step_.targets),
            stride(step_.to),
            step_.activation == int64_t(Activation::kRelu),
            step_.ahead};
  }

  // About the same number of edges, and of vectors that are written, for each part.
  Range blocks_of_part() const {
    if (parts_ == 1) return {0, step_.number};
    const auto cost = [&](int64_t block) {
      const int32_t* fields = ints(step_.blocks + kBlockFields * block);
      return int64_t{fields[1]} * (fields[3] + 8);
    };
    int64_t total = 0;
    for (int64_t block = 0; block < step_.number; ++block) total += cost(block);
    Range range{step_.number, step_.number};
    int64_t before = 0;
    for (int64_t block = 0; block < step_.number; ++block) {
      if (range.begin == step_.number && before >= total * part_ / parts_) range.begin = block;
      if (before >= total * (part_ + 1) / parts_) {
        range.end = block;
        break;
      }
      before += cost(block);
    }
    return range;
  }

  void activate_run(float* map, const int32_t* mask, int64_t begin, int64_t end) const {
    for (int64_t place = begin * kLanes; place < end * kLanes; place += kLanes)
      store(map + place, masked(activate(load(map + place), activation()), mask + place));
  }
  Activation activation() const { return Activation(step_.activation); }

  void depthwise() const {
    const Range range = maps(), all = images();
    for (int64_t index = range.begin; index < range.end; ++index) {
      const Filter filter{values(step_.weights) + index * step_.size * step_.size, values(step_.biases)[index],
                          activation()};
      for (int64_t image = all.begin; image < all.end; ++image)
        filter_map(step_.size, in(index, image), filter, step_.stride, out(index, image));
    }
  }

  void pool() const {
    const Geometry& from = geometry(step_.from);
    const Window window{step_.size, step_.stride, step_.padding, from.height, from.width, step_.operation};
    const Range range = maps(), all = images();
    for (int64_t index = range.begin; index < range.end; ++index)
      for (int64_t image = all.begin; image < all.end; ++image)
        pool_map(window, in(index, image), call_.scratch, activation(), out(index, image));
  }

  void mean() const {
    const Geometry& from = geometry(step_.from);
    const Range range = maps(), all = images();
    for (int64_t index = range.begin; index < range.end; ++index)
      for (int64_t image = all.begin; image < all.end; ++image) {
        const float* map = source(index, image);
        Vector totals{};
        int64_t place = 0;
        for (; place + kLanes <= from.run(1); place += kLanes) totals += load(map + place);
        float total = wirings::WIRINGS_TARGET::sum(totals);
        for (; place < from.run(1); ++place) total += map[place];
        total /= float(from.height * from.width);
        *target(index, image) = activate(broadcast(total), activation())[0];
      }
  }

  void affine() const {
    const Range range = maps();
    const int64_t vectors = vectors_of(run_floats());
    for (int64_t index = range.begin; index < range.end; ++index) {
      const float *from = source(index, image_), scale = values(step_.weights)[index];
      const float shift = values(step_.biases)[index];
      float* to = target(index, image_);
      for (int64_t place = 0; place < vectors * kLanes; place += kLanes) {
        const Vector value = load(from + place) * scale + shift;
        store(to + place, masked(activate(value, activation()), mask(step_.from) + place));
      }
    }
  }

  void combine() const {
    const Geometry &from = geometry(step_.from), &other = geometry(step_.other);
    const bool by_number = other.height == 1 && other.width == 1 && !(from.height == 1 && from.width == 1);
    const Range range = maps(), all = by_number ? images() : Range{image_, image_ + 1};
    const int64_t vectors = vectors_of(by_number ? from.run(1) : run_floats());
    for (int64_t index = range.begin; index < range.end; ++index)
      for (int64_t image = all.begin; image < all.end; ++image) {
        const float *one = source(index, image), *two = map(step_.other, ints(step_.others)[index], image);
        float* to = target(index, image);
        for (int64_t place = 0; place < vectors * kLanes; place += kLanes) {
          const Vector left = load(one + place), right = by_number ? broadcast(*two) : load(two + place);
          const Vector value = step_.operation == 0 ? left + right : left * right;
          store(to + place, masked(activate(value, activation()), mask(step_.from) + place));
        }
      }
  }

  void place() const {
    const Geometry &from = geometry(step_.from), &to = geometry(step_.to);
    const auto count = [](int64_t from, int64_t first, int64_t step, int64_t to, int64_t to_first, int64_t to_step) {
      const int64_t read = first < from ? (from - first + step - 1) / step : 0;
      return std::min(read, to_first < to ? (to - to_first + to_step - 1) / to_step : 0);
    };
    const int64_t rows = count(from.height, step_.row, step_.step, to.height, step_.to_row, step_.to_step);
    const int64_t columns = count(from.width, step_.column, step_.step, to.width, step_.to_column, step_.to_step);
    const Range range = maps(), all = images();
    for (int64_t index = range.begin; index < range.end; ++index)
      for (int64_t image = all.begin; image < all.end; ++image) {
        if (step_.operation == 1) std::memset(target(index, image), 0, sizeof(float) * to.run(1));
        for (int64_t row = 0; row < rows; ++row) {
          const float* in = source(index, image) + (step_.row + row * step_.step) * from.pitch() + step_.column;
          float* out = target(index, image) + (step_.to_row + row * step_.to_step) * to.pitch() + step_.to_column;
          int64_t x = 0;
          if (step_.step == 1 && step_.to_step == 1) {
            std::memcpy(out, in, sizeof(float) * columns);
            continue;
          }
          if (step_.step == 2 && step_.to_step == 1)
            for (; x + kLanes <= columns; x += kLanes) store(out + x, every_second(in + 2 * x));
          for (; x < columns; ++x) out[x * step_.to_step] = in[x * step_.step];
        }
      }
  }

  void linear_layer() const {
    const Range all = images();
    const int64_t count = step_.inputs, number = all.end - all.begin;
    float *features = call_.scratch, *results = features + Geometry::rounded(number * count);
    for (int64_t image = 0; image < number; ++image)
      for (int64_t index = 0; index < count; ++index) features[image * count + index] = *source(index, all.begin + image);
    Range range;
    if (step_.columns) {
      const Range tiles = share(step_.columns / kHeadTile, part_, parts_);
      range = {tiles.begin * kHeadTile, tiles.end * kHeadTile};
      const auto run = [&](const auto* weights) {
        linear(features, number, count, weights, values(step_.biases), step_.columns, range.begin, range.end, results);
      };
      if (step_.halves >= 0)
        run(reinterpret_cast<const uint16_t*>(ints(step_.halves)));
      else
        run(values(step_.weights));
      range.end = std::min(range.end, step_.count);
    } else {
      range = maps();
      sparse_linear(features, number, range, results);
    }
    const int64_t columns = step_.columns ? step_.columns : step_.count;
    for (int64_t image = 0; image < number; ++image)
      for (int64_t index = range.begin; index < range.end; ++index)
        *target(index, all.begin + image) =
            activate(broadcast(results[image * columns + index]), activation())[0];
  }

  void sparse_linear(const float* features, int64_t images, Range range, float* results) const {
    const int32_t *starts = ints(step_.starts), *edges = ints(step_.edges);
    for (int64_t image = 0; image < images; ++image)
      for (int64_t index = range.begin; index < range.end; ++index) {
        float totals[4] = {values(step_.biases)[index], 0, 0, 0};  // four sums, since each addition waits for the last
        const float* weights = values(step_.weights);
        for (int32_t edge = starts[index]; edge < starts[index + 1]; ++edge)
          totals[edge % 4] += weights[edge] * features[image * step_.inputs + edges[edge]];
        results[image * step_.count + index] = (totals[0] + totals[1]) + (totals[2] + totals[3]);
      }
  }

  const Call& call_;
  const Step& step_;
  const int number_, image_, part_, parts_;
};

}  // namespace

void run_part(const Call& call, int step, int image, int part, int parts) { Part(call, step, image, part, parts).run(); }

void multiply_part(const Matrix& matrix, const float* sources, int64_t pixels, float* to, int part, int parts) {
  constexpr int kVectors = 8;
  constexpr int64_t kStrip = kVectors * kLanes;  // pixels of all sources that stay in the cache for all targets
  const int64_t strips = (pixels + kStrip - 1) / kStrip;
  const bool by_strips = strips >= parts;
  const Range strip_range = by_strips ? share(strips, part, parts) : Range{0, strips};
  const Range targets = by_strips ? Range{0, matrix.targets} : share(matrix.targets, part, parts);
  for (int64_t strip = strip_range.begin; strip < strip_range.end; ++strip) {
    const int64_t begin = strip * kStrip, end = std::min(begin + kStrip, pixels);
    for (int64_t target = targets.begin; target < targets.end; ++target) {
      const int32_t first = matrix.starts[target], last = matrix.starts[target + 1];
      float* row = to + target * pixels;
      int64_t pixel = begin;
      const auto source = [&](int64_t edge) { return sources + matrix.columns[edge] * pixels + pixel; };
      const auto tile = [&](auto& totals, int vectors) {
        add_edges(totals, matrix.weights, first, last, 0, source);
        for (int v = 0; v < vectors; ++v) store(row + pixel + v * kLanes, totals[v]);
        pixel += vectors * kLanes;
      };
      if (pixel + kStrip <= end) {
        Vector totals[kVectors] = {};
        tile(totals, kVectors);
      }
      while (pixel + kLanes <= end) {
        Vector totals[1] = {};
        tile(totals, 1);
      }
      for (; pixel < end; ++pixel) {
        float total = 0;
        for (int32_t edge = first; edge < last; ++edge) total += matrix.weights[edge] * *source(edge);
        row[pixel] = total;
      }
    }
  }
}

extern const int lanes;
const int lanes = kLanes;

}  // namespace WIRINGS_TARGET
}  // namespace wirings
