#include "program.h"

#include <algorithm>
#include <initializer_list>

namespace wirings {
namespace {

constexpr int64_t kMaxSide = 1 << 15, kMaxPad = 64, kMaxCount = 1 << 24, kMaxFloats = int64_t{1} << 31;

// Checks of one step. All methods return whether the value is valid.
class StepCheck {
 public:
  StepCheck(const Program& program, const Step& step) : program_(program), step_(step) {}

  bool is_valid() const {
    if (!within(int64_t(step_.kind), 0, kKinds - 1) || !within(step_.count, 0, kMaxCount) ||
        !within(step_.activation, 0, kActivations - 1))
      return false;
    switch (step_.kind) {
      case Kind::kImport: return tensor() && geometry(step_.to) && slots(step_.targets, step_.count, step_.to);
      case Kind::kExport: return tensor() && geometry(step_.from) && slots(step_.sources, step_.count, step_.from);
      case Kind::kSum:
        return maps() && sum() && (step_.size ? filters() : same_size(step_.from, step_.to));
      case Kind::kDepthwise: return maps() && sources() && depthwise();
      case Kind::kPool: return maps() && sources() && pool();
      case Kind::kMean: return maps() && sources() && is_one_pixel(step_.to);
      case Kind::kAffine:
        return maps() && sources() && same_size(step_.from, step_.to) && floats(step_.weights, step_.count) &&
               floats(step_.biases, step_.count);
      case Kind::kCombine: return maps() && sources() && same_size(step_.from, step_.to) && combine();
      case Kind::kPlace: return maps() && sources() && place();
      case Kind::kLinear: return maps() && linear();
    }
    return false;
  }

 private:
  static bool within(int64_t value, int64_t low, int64_t high) { return low <= value && value <= high; }
  // Whether `count` elements from `first` on lie within an array of `size`.
  static bool range(int64_t first, int64_t count, size_t size) {
    return first >= 0 && count >= 0 && first <= int64_t(size) && count <= int64_t(size) - first;
  }
  bool ints(int64_t first, int64_t count) const { return range(first, count, program_.integers.size()); }
  bool floats(int64_t first, int64_t count) const { return range(first, count, program_.values.size()); }
  bool geometry(int64_t number) const { return within(number, 0, int64_t(program_.geometries.size()) - 1); }
  const Geometry& at(int64_t number) const { return program_.geometries[number]; }
  bool all(int64_t first, int64_t count, int64_t low, int64_t high) const {
    if (!ints(first, count)) return false;
    const int32_t* begin = program_.integers.data() + first;
    return std::all_of(begin, begin + count, [&](int32_t value) { return within(value, low, high); });
  }
  bool slots(int64_t first, int64_t count, int64_t number) const { return all(first, count, 0, at(number).slots - 1); }

  bool maps() const {
    return geometry(step_.from) && geometry(step_.to) && (at(step_.to).grouped || !at(step_.from).grouped) &&
           slots(step_.targets, step_.count, step_.to);
  }
  bool sources() const { return slots(step_.sources, step_.count, step_.from); }
  bool same_size(int64_t one, int64_t other) const {
    return at(one).height == at(other).height && at(one).width == at(other).width && at(one).pad == at(other).pad;
  }
  bool is_one_pixel(int64_t number) const { return at(number).height == 1 && at(number).width == 1; }
  bool tensor() const {
    return within(step_.inputs, 0, 255) && within(step_.channels, 1, kMaxCount) &&
           all(step_.edges, step_.count, 0, step_.channels - 1);
  }
  bool others() const {
    return geometry(step_.other) && (at(step_.other).grouped == at(step_.from).grouped) &&
           slots(step_.others, step_.count, step_.other);
  }
  bool sum() const {
    const Geometry& from = at(step_.from);
    if (!within(step_.number, 0, kMaxCount) || !within(step_.num_edges, 0, kMaxFloats) ||
        !within(step_.num_weights, 0, kMaxFloats) || !within(step_.ahead, 0, 255) || !within(step_.strip, 0, kMaxCount) ||
        !ints(step_.blocks, kBlockFields * step_.number) || !slots(step_.edges, step_.num_edges, step_.from) ||
        !ints(step_.taps, step_.num_edges) || !floats(step_.weights, step_.num_weights) ||
        !floats(step_.biases, step_.count))
      return false;
    for (int64_t edge = 0; edge < step_.num_edges; ++edge) {
      const int32_t tap = program_.integers[step_.taps + edge];
      if (!within(tap, 0, 255 * 256 + 255) || !within(tap_rows(tap), -from.pad, from.pad) ||
          !within(tap_columns(tap), -from.pad, from.pad))
        return false;
    }
    for (int64_t number = 0; number < step_.number; ++number) {
      const int32_t* block = program_.integers.data() + step_.blocks + kBlockFields * number;
      if (!within(block[1], 1, kMaxTargets) || !range(block[0], block[1], step_.count) ||
          !range(block[2], block[3], step_.num_edges) ||
          !range(block[4], int64_t{block[1]} * block[3], step_.num_weights))
        return false;
    }
    if (step_.bias_maps != -1 && !floats(step_.bias_maps, step_.count * from.height * from.width)) return false;
    return step_.others == -1 || (others() && same_size(step_.other, step_.from));
  }
  bool window(int64_t in, int64_t out, int64_t padding) const {  // whether all windows begin within the padded map
    return within(step_.stride, 1, kMaxSide) && (out - 1) * step_.stride - padding < in;
  }
  bool depthwise() const {
    return windows() && floats(step_.weights, step_.count * step_.size * step_.size) &&
           floats(step_.biases, step_.count);
  }
  bool filters() const {
    return windows() && floats(step_.filters, step_.count * step_.size * step_.size) &&
           floats(step_.filter_biases, step_.count) && within(step_.filter_activation, 0, kActivations - 1);
  }
  bool windows() const {
    const Geometry &from = at(step_.from), &to = at(step_.to);
    const int64_t size = step_.size, stride = step_.stride;
    if ((size != 3 && size != 5 && size != 7) || (stride != 1 && stride != 2) || from.pad < size / 2) return false;
    return to.height == (from.height + stride - 1) / stride && to.width == (from.width + stride - 1) / stride;
  }
  bool pool() const {
    const Geometry &from = at(step_.from), &to = at(step_.to);
    return within(step_.operation, 0, 2) && within(step_.size, 1, kMaxPad) && within(step_.padding, 0, step_.size - 1) &&
           window(from.height, to.height, step_.padding) && window(from.width, to.width, step_.padding);
  }
  bool combine() const {
    return within(step_.operation, 0, 1) && others() &&
           (same_size(step_.other, step_.from) || is_one_pixel(step_.other));
  }
  bool place() const {
    return within(step_.operation, 0, 1) && within(step_.row, 0, kMaxSide) && within(step_.column, 0, kMaxSide) && within(step_.step, 1, kMaxSide) &&
           within(step_.to_row, 0, kMaxSide) && within(step_.to_column, 0, kMaxSide) &&
           within(step_.to_step, 1, kMaxSide);
  }
  bool linear() const {
    if (!is_one_pixel(step_.from) || !is_one_pixel(step_.to) || !within(step_.inputs, 0, kMaxCount) ||
        !slots(step_.sources, step_.inputs, step_.from) || !floats(step_.biases, step_.count))
      return false;
    if (step_.columns)
      return step_.columns == (step_.count + kHeadTile - 1) / kHeadTile * kHeadTile &&
             (step_.halves == -1 ? floats(step_.weights, step_.inputs * step_.columns)
                                 : ints(step_.halves, step_.inputs * step_.columns / 2)) &&
             floats(step_.biases, step_.columns);
    if (!ints(step_.starts, step_.count + 1)) return false;
    const int32_t* starts = program_.integers.data() + step_.starts;
    if (starts[0] != 0 || !std::is_sorted(starts, starts + step_.count + 1)) return false;
    const int64_t edges = starts[step_.count];
    return all(step_.edges, edges, 0, step_.inputs - 1) && floats(step_.weights, edges);
  }

  const Program& program_;
  const Step& step_;
};

}  // namespace

int steps_by_image(const Program& program) {
  int number = 0;
  for (; number < int(program.steps.size()); ++number) {
    const Step& step = program.steps[number];
    const int64_t read = step.kind == Kind::kImport ? step.to : step.from;
    if (program.geometries[read].grouped) break;
  }
  return number;
}

std::string check(const Program& program) {
  int64_t total = 0;
  for (const Geometry& geometry : program.geometries) {
    for (int64_t value : {geometry.height, geometry.width})
      if (value < 1 || value > kMaxSide) return "a map has no size that can be run";
    if (geometry.reach < 0 || geometry.reach > kMaxCount || geometry.row_reach < 0 || geometry.row_reach > kMaxCount ||
        geometry.pad < 0 || geometry.pad > kMaxPad || geometry.slots < 0 || geometry.slots > kMaxCount ||
        (geometry.grouped != 0 && geometry.grouped != 1))
      return "a geometry is damaged";
    total += geometry.floats(geometry.grouped ? kGroup : 1);
    if (total > kMaxFloats) return "the maps need more than 8 GiB";
  }
  for (size_t number = 0; number < program.steps.size(); ++number)
    if (!StepCheck(program, program.steps[number]).is_valid())
      return "step " + std::to_string(number) + " is damaged";
  for (size_t number = steps_by_image(program); number < program.steps.size(); ++number) {
    const Step& step = program.steps[number];
    const int64_t used = step.kind == Kind::kExport ? step.from : step.to;
    const int64_t read = step.kind == Kind::kImport ? step.to : step.from;
    if (!program.geometries[used].grouped || !program.geometries[read].grouped)
      return "step " + std::to_string(number) + " runs image by image after steps of groups";
  }
  return "";
}

}  // namespace wirings
