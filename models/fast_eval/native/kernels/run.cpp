#include "program.h"

#include <chrono>
#include <numeric>
#include <optional>

#include "depthwise.h"
#include "product.h"
#include "threads.h"

namespace wirings {
namespace {

constexpr int kStripRows = 16;               // a strip of any width ends with a whole vector
constexpr int kStemRows = 8;
constexpr int kLargestMap = 16 * 1024 / 4;   // floats; larger maps are summed in strips that stay in the cache
static_assert(kStripRows % kLanes == 0);

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

Strip strip_of(const Step& step, int images) {
  const Shape shape = step.shape();
  const bool whole = step.kind == Kind::kPool || step.joint || shape.floats(1) <= kLargestMap;
  return {shape, whole ? shape.height : std::min(kStripRows, shape.height), step.joint ? images : 1};
}

// Floats that one thread needs beside the maps: strips of sums, rows of images.
long scratch_floats(const Step& step, int images) {
  if (step.kind == Kind::kStem) {
    const Strip strip{step.shape(), kStemRows, 1};
    return step.nodes * strip.floats() + StemRows::floats(step.channels, step.width);
  }
  if (step.kind == Kind::kHead) return 0;
  const Strip strip = strip_of(step, images);
  return strip.floats() * (strip.rows < strip.shape.height ? step.nodes : 1);
}

// Where the parts of a workspace begin.
struct Layout {
  int teams, members;  // threads that take units by themselves; threads that share one
  int largest;         // images of a unit
  long zeros = 0, scratch = 0, features = 0, areas[kAreas] = {};

  Layout(const Program& program, int images, int threads) {
    teams = images >= threads ? threads : 1;
    members = teams == 1 ? threads : 1;
    const int rounds = (images + teams * kUnit - 1) / (teams * kUnit);
    largest = std::max(1, (images + rounds * teams - 1) / (rounds * teams));
    for (int number = 0; number < program.count; ++number) {
      const Step& step = program.steps[number];
      scratch = std::max(scratch, rounded(scratch_floats(step, largest)));
      zeros = std::max(zeros, rounded(2 * step.width + 6 * kLanes));
      if (step.kind == Kind::kHead) features = rounded(step.from_nodes * largest);
      if (step.kind == Kind::kStem || step.kind == Kind::kHead) continue;
      long& area = areas[step.from];
      area = std::max(area, rounded(step.from_nodes * step.shape().floats(step.joint ? largest : 1)));
    }
  }
  static long rounded(long floats) { return (floats + 63) / 64 * 64; }
  // Floats before an area; before the features, which lie behind all areas.
  long before(int64_t number) const { return std::accumulate(areas, areas + number, 0L); }
  long unit() const { return before(kAreas) + features; }
  long total() const { return zeros + teams * members * scratch + teams * unit(); }
};

// What a thread works with on one unit.
struct Worker {
  const Program& program;
  const Images& images;
  const Layout& layout;
  float* zeros;
  float* scratch;
  float* unit;
  int first, count;     // images of the unit
  int member, members;  // this thread's number among those that share the unit
  float* logits;

  Maps area(int64_t number, Shape shape, bool joint) const {
    return {unit + layout.before(number), shape, joint ? count : 1};
  }
  float* features() const { return unit + layout.before(kAreas); }

  // This thread's part of a step's nodes, by their edges.
  std::pair<int, int> share(const Step& step) const {
    const int32_t* starts = step.kind == Kind::kStem ? nullptr : program.integers + step.starts;
    const auto end = [&](int part) {
      if (!starts) return int(step.nodes * part / members);
      const auto cost = [&](int node) { return long(starts[node]) + 16L * node; };
      const long wanted = cost(step.nodes) * part / members;
      int low = 0, high = step.nodes;
      while (low < high) {
        const int middle = (low + high) / 2;
        (cost(middle) < wanted ? low : high) = cost(middle) < wanted ? middle + 1 : middle;
      }
      return low;
    };
    return {end(member), end(member + 1)};
  }

  void stem(const Step& step, int image) const;
  void nodes(const Step& step, int image) const;
  void pool(const Step& step, int image) const;
  void classify(const Step& step) const;

  void run(const Step& step, int image) const {
    switch (step.kind) {
      case Kind::kStem: return stem(step, image);
      case Kind::kNodes: return nodes(step, image);
      case Kind::kPool: return pool(step, image);
      case Kind::kHead: return classify(step);
    }
  }
};

// How many output rows are complete when the input rows before `end` are known.
int rows_ready(int end, Shape in, int stride) {
  if (end <= 0) return 0;
  return end == in.height ? in.halved(stride).height : stride == 2 ? end / 2 : end - 1;
}

// What a filter reads left of the first row, now and when it will have moved up.
void clear_edges(const Strip& strip, float* start) {
  start[-1] = 0;
  start[-2 * strip.shape.pitch() - 1] = 0;
}

// Filters the rows that became complete by [begin, end) and keeps the last two for the next strip.
void filter_strip(const Strip& strip, float* start, const float* zeros, int begin, int end, const float* filter,
                  int stride, float* to) {
  const int pitch = strip.shape.pitch();
  const Rows rows{start - long(begin) * pitch, zeros, strip.shape.height, pitch};
  depthwise(rows, filter, stride, to, strip.shape.halved(stride), rows_ready(begin, strip.shape, stride),
            rows_ready(end, strip.shape, stride));
  if (end < strip.shape.height)
    std::memcpy(start - 2 * pitch, start + long(end - begin - 2) * pitch, sizeof(float) * 2 * pitch);
}

void Worker::stem(const Step& step, int image) const {
  const auto [begin, end] = share(step);
  if (begin == end) return;
  const Shape shape = step.shape();
  const Strip strip{shape, kStemRows, 1};
  const Maps to = area(step.to, shape.halved(step.stride), step.joint_to);
  StemRows rows(scratch + step.nodes * strip.floats(), step.channels, step.in_stride, shape);
  const auto start = [&](int node) { return scratch + node * strip.floats() + strip.lead(); };
  for (int node = begin; node < end; ++node) clear_edges(strip, start(node));
  for (int y = 0; y < shape.height; y += kStemRows) {
    const int bottom = std::min(y + kStemRows, shape.height);
    for (int row = y; row < bottom; ++row) {
      rows.advance(images, first + image, row, row == 0);
      const auto all = [&](auto one_row, int& node, int together) {
        for (; node + together <= end; node += together) {
          float* lines[4];
          for (int each = 0; each < together; ++each) lines[each] = start(node + each) + (row - y) * shape.pitch();
          one_row(rows, step.channels, row, shape.width, program.values + step.weights + node * step.channels * 9L,
                  program.values + step.biases + node, lines);
        }
      };
      int node = begin;
      if (kRegisters == 32) all(stem_row<3>, node, 3);
      all(stem_row<1>, node, 1);
    }
    for (int node = begin; node < end; ++node)
      filter_strip(strip, start(node), zeros, y, bottom, program.values + step.filters + 9L * node, step.stride,
                   to.of(step.first + node, step.joint_to ? image : 0));
  }
}

Edges edges_of(const Program& program, const Step& step, int node, long map) {
  const int32_t* starts = program.integers + step.starts + node;
  return {program.integers + step.sources + starts[0], program.values + step.weights + starts[0],
          starts[1] - starts[0], program.values[step.biases + node],
          step.bias_maps < 0 ? nullptr : program.values + step.bias_maps + node * map};
}

void Worker::nodes(const Step& step, int image) const {
  const auto [begin, end] = share(step);
  const Strip strip = strip_of(step, layout.largest);
  const Shape shape = strip.shape;
  const bool whole = strip.rows == shape.height;
  const Maps from = area(step.from, shape, step.joint);
  const Maps to = area(step.to, shape.halved(step.stride), step.joint_to);
  const int32_t* mask = program.integers + step.mask;
  const Sources sources{from.data, from.node()};
  const auto start_of = [&](int node) { return scratch + (whole ? 0 : node * strip.floats()) + strip.lead(); };
  for (int node = begin; node < end; ++node) clear_edges(strip, start_of(node));
  for (int y = 0; y < shape.height; y += strip.rows) {
    const int bottom = std::min(y + strip.rows, shape.height);
    const long first_float = long(y) * shape.pitch();
    const long floats = whole ? from.node() : rounded_up((bottom - y) * shape.pitch(), kLanes);
    for (int node = begin; node < end; ++node) {
      float* start = start_of(node);
      sum_edges(edges_of(program, step, node, shape.floats(kUnit)), sources, first_float, floats / kLanes, mask, start);
      for (int each = 0; each < from.images; ++each)
        filter_strip(strip, start + long(each) * shape.image(), zeros, y, bottom,
                     program.values + step.filters + 9L * node, step.stride,
                     to.of(step.first + node, step.joint ? each : step.joint_to ? image : 0));
    }
  }
}

void Worker::pool(const Step& step, int image) const {
  const auto [begin, end] = share(step);
  const Shape shape = step.shape();
  const Maps from = area(step.from, shape, step.joint);
  const int32_t* mask = program.integers + step.mask;
  const Sources sources{from.data, from.node()};
  for (int node = begin; node < end; ++node) {
    sum_edges(edges_of(program, step, node, shape.floats(kUnit)), sources, 0, from.node() / kLanes, mask, scratch);
    for (int each = 0; each < from.images; ++each) {
      const float* map = scratch + long(each) * shape.image();
      Vector totals{};
      int place = 0;
      for (; place + kLanes <= shape.rows(); place += kLanes) totals += load(map + place);
      float total = sum(totals);
      for (; place < shape.rows(); ++place) total += map[place];
      features()[(step.joint ? each : image) * step.nodes + node] = total / float(shape.height * shape.width);
    }
  }
}

void Worker::classify(const Step& step) const {
  const int tiles = step.columns / kHeadTile;
  head(features(), count, step.from_nodes, program.values + step.weights, program.values + step.biases, step.columns,
       tiles * member / members * kHeadTile, tiles * (member + 1) / members * kHeadTile, logits + long(first) * step.nodes,
       step.nodes);
}

// All steps for one unit: image by image where maps are large, then all together.
void run_unit(const Worker& worker, Barrier* barrier, double* seconds) {
  const Program& program = worker.program;
  const auto one = [&](int number, int image) {
    const auto start = std::chrono::steady_clock::now();
    worker.run(program.steps[number], image);
    if (barrier) barrier->wait();
    if (seconds) seconds[number] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  int together = 0;
  while (!program.steps[together].joint && program.steps[together].kind != Kind::kHead) ++together;
  for (int image = 0; image < worker.count; ++image)
    for (int number = 0; number < together; ++number) one(number, image);
  for (int number = together; number < program.count; ++number) one(number, 0);
}

}  // namespace

long workspace_floats(const Program& program, int images, int threads) {
  return Layout(program, images, threads).total();
}

void run(const Program& program, const Images& images, int count, float* workspace, int threads, float* logits,
         double* seconds) {
  const Layout layout(program, count, threads);
  std::optional<Barrier> barrier;
  if (layout.members > 1) barrier.emplace(layout.members);
  const int rounds = (count + layout.teams * kUnit - 1) / (layout.teams * kUnit);
  const int units = rounds * layout.teams;
  in_parallel(threads, [&](int thread) {
    const int team = layout.members > 1 ? 0 : thread;
    float* scratch = workspace + layout.zeros + thread * layout.scratch;
    float* unit = workspace + layout.zeros + threads * layout.scratch + team * layout.unit();
    for (int number = team; number < units; number += layout.teams) {
      const int first = long(count) * number / units, end = long(count) * (number + 1) / units;
      const Worker worker{program, images, layout, workspace + kLanes, scratch, unit, first, end - first,
                          layout.members > 1 ? thread : 0, layout.members, logits};
      run_unit(worker, barrier ? &*barrier : nullptr, thread == 0 ? seconds : nullptr);
    }
  });
}

}  // namespace wirings
