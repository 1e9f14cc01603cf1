#include "program.h"

#include <chrono>
#include <numeric>

#include "product.h"
#include "strips.h"
#include "threads.h"

namespace wirings {
namespace {

constexpr int kStripRows = 16;               // a strip of any width ends with a whole vector
constexpr int kStemRows = 8;
constexpr int kFewestRows = 3;                // of a part, where maps are shared by rows
constexpr int kLargestMap = 16 * 1024 / 4;   // floats; larger maps are summed in strips that stay in the cache
static_assert(kStripRows % kLanes == 0);

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
  int units, largest;  // how many there are, and the images of the largest
  long zeros = 0, scratch = 0, features = 0, areas[kAreas] = {};

  Layout(const Program& program, int images, int threads) {
    teams = images >= threads ? threads : 1;
    members = teams == 1 ? threads : 1;
    units = (images + teams * kUnit - 1) / (teams * kUnit) * teams;
    largest = (images + units - 1) / units;
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
  int first, count;  // images of the unit
  float* logits;

  Maps area(int64_t number, Shape shape, bool joint) const {
    return {unit + layout.before(number), shape, joint ? count : 1};
  }
  float* features() const { return unit + layout.before(kAreas); }

  Part part(const Step& step, int number) const;
  void stem(const Step& step, Part part, int image) const;
  void nodes(const Step& step, Part part, int image) const;
  void pool(const Step& step, Part part, int image) const;
  void classify(const Step& step, int number) const;

  void run(const Step& step, int number, int image) const {
    switch (step.kind) {
      case Kind::kStem: return stem(step, part(step, number), image);
      case Kind::kNodes: return nodes(step, part(step, number), image);
      case Kind::kPool: return pool(step, part(step, number), image);
      case Kind::kHead: return classify(step, number);
    }
  }
};

// Where the share `part` of `parts` begins among nodes, by their edges.
int first_node(const Step& step, const int32_t* starts, int part, int parts) {
  const auto cost = [&](int node) { return long(starts[node]) + 16L * node; };
  const long wanted = cost(step.nodes) * part / parts;
  int low = 0, high = step.nodes;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (cost(middle) < wanted)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// Large maps are shared by rows: then a thread reads few maps that another processor has just written, which costs
// more than the rows that both need. Small maps are shared by nodes.
Part Worker::part(const Step& step, int number) const {
  const int parts = layout.members, rows = step.shape().halved(step.stride).height;
  if (step.kind == Kind::kStem || (step.kind == Kind::kNodes && !step.joint && rows / parts >= kFewestRows))
    return {0, int(step.nodes), rows * number / parts, rows * (number + 1) / parts};
  const int32_t* starts = program.integers + step.starts;
  return {first_node(step, starts, number, parts), first_node(step, starts, number + 1, parts), 0, rows};
}

void Worker::stem(const Step& step, Part part, int image) const {
  if (part.first_row == part.last_row) return;
  const Shape shape = step.shape();
  const Strip strip{shape, kStemRows, 1};
  const Walk walk{shape, int(step.stride), kStemRows, part};
  const Maps to = area(step.to, shape.halved(step.stride), step.joint_to);
  StemRows rows(scratch + step.nodes * strip.floats(), step.channels, step.in_stride, shape);
  const auto start = [&](int node) { return scratch + node * strip.floats() + strip.lead(); };
  for (int node = 0; node < step.nodes; ++node) clear_edges(strip, start(node));
  for (int y = walk.top(); y < walk.bottom(); y = walk.end(y)) {
    for (int row = y; row < walk.end(y); ++row) {
      rows.advance(images, first + image, row, row == walk.top());
      const auto all = [&](auto one_row, int& node, int together) {
        for (; node + together <= step.nodes; node += together) {
          float* lines[4];
          for (int each = 0; each < together; ++each) lines[each] = start(node + each) + (row - y) * shape.pitch();
          one_row(rows, step.channels, row, shape.width, program.values + step.weights + node * step.channels * 9L,
                  program.values + step.biases + node, lines);
        }
      };
      int node = 0;
      if (kRegisters == 32) all(stem_row<3>, node, 3);
      all(stem_row<1>, node, 1);
    }
    for (int node = 0; node < step.nodes; ++node)
      filter_strip(walk, y, start(node), zeros, program.values + step.filters + 9L * node,
                   to.of(step.first + node, step.joint_to ? image : 0));
  }
}

Edges edges_of(const Program& program, const Step& step, int node, long map) {
  const int32_t* starts = program.integers + step.starts + node;
  return {program.integers + step.sources + starts[0], program.values + step.weights + starts[0],
          starts[1] - starts[0], program.values[step.biases + node],
          step.bias_maps < 0 ? nullptr : program.values + step.bias_maps + node * map};
}

void Worker::nodes(const Step& step, Part part, int image) const {
  if (part.begin == part.end || part.first_row == part.last_row) return;
  const Strip strip = strip_of(step, layout.largest);
  const Shape shape = strip.shape;
  const Walk walk{shape, int(step.stride), strip.rows, part};
  const bool whole = strip.rows == shape.height;
  const Maps from = area(step.from, shape, step.joint);
  const Maps to = area(step.to, shape.halved(step.stride), step.joint_to);
  const Sources sources{from.data, from.node()};
  const auto start_of = [&](int node) { return scratch + (whole ? 0 : node * strip.floats()) + strip.lead(); };
  for (int node = part.begin; node < part.end; ++node) clear_edges(strip, start_of(node));
  for (int y = walk.top(); y < walk.bottom(); y = walk.end(y)) {
    // Sources are read from the beginning of a vector on; what that adds before the strip is never read.
    const long place = long(y) * shape.pitch(), before = place % kLanes;
    const long end = step.joint ? from.node() : long(walk.end(y)) * shape.pitch();
    const int vectors = (end - place + before + kLanes - 1) / kLanes;
    for (int node = part.begin; node < part.end; ++node) {
      float* start = start_of(node);
      sum_edges(edges_of(program, step, node, shape.floats(kUnit)), sources, place - before, vectors,
                program.integers + step.mask, start - before);
      for (int each = 0; each < from.images; ++each)
        filter_strip(walk, y, start + long(each) * shape.image(), zeros, program.values + step.filters + 9L * node,
                     to.of(step.first + node, step.joint ? each : step.joint_to ? image : 0));
    }
  }
}

void Worker::pool(const Step& step, Part part, int image) const {
  const Shape shape = step.shape();
  const Maps from = area(step.from, shape, step.joint);
  const int32_t* mask = program.integers + step.mask;
  const Sources sources{from.data, from.node()};
  for (int node = part.begin; node < part.end; ++node) {
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

void Worker::classify(const Step& step, int number) const {
  const int tiles = step.columns / kHeadTile;
  const auto with = [&](const auto* weights) {
    head(features(), count, step.from_nodes, weights, program.values + step.biases, step.columns,
         tiles * number / layout.members * kHeadTile, tiles * (number + 1) / layout.members * kHeadTile,
         logits + long(first) * step.nodes, step.nodes);
  };
  if (step.half)
    with(reinterpret_cast<const uint16_t*>(program.integers + step.weights));
  else
    with(program.values + step.weights);
}

// Steps that are done image by image; the others take the images of a unit together.
int steps_by_image(const Program& program) {
  int number = 0;
  while (!program.steps[number].joint && program.steps[number].kind != Kind::kHead) ++number;
  return number;
}

// All steps for one unit; `step(task, number, image)` does one of them. Returns how many there were.
template <typename DoStep>
int all_steps(const Program& program, int images, double* seconds, const DoStep& step) {
  int task = 0;
  const auto timed = [&](int number, int image) {
    const auto start = std::chrono::steady_clock::now();
    step(task++, number, image);
    if (seconds) seconds[number] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const int first = steps_by_image(program);
  for (int image = 0; image < images; ++image)
    for (int number = 0; number < first; ++number) timed(number, image);
  for (int number = first; number < program.count; ++number) timed(number, 0);
  return task;
}

}  // namespace

long workspace_floats(const Program& program, int images, int threads) {
  return Layout(program, images, threads).total();
}

void run(const Program& program, const Images& images, int count, float* workspace, int threads, float* logits,
         double* seconds) {
  const Layout layout(program, count, threads);
  const bool shared = layout.members > 1;
  Tasks tasks(shared ? program.count * count : layout.units, shared ? layout.members : 1);
  in_parallel(threads, [&](int thread) {
    float* scratch = workspace + layout.zeros + thread * layout.scratch;
    float* unit = workspace + layout.zeros + threads * layout.scratch + (shared ? 0 : thread) * layout.unit();
    double* times = thread == 0 ? seconds : nullptr;
    const auto worker = [&](int number) {
      const int first = long(count) * number / layout.units, end = long(count) * (number + 1) / layout.units;
      return Worker{program, images, layout, workspace + kLanes, scratch, unit, first, end - first, logits};
    };
    if (shared) {
      for (int number = 0, first = 0; number < layout.units; ++number) {
        const Worker all = worker(number);
        first += all_steps(program, all.count, times, [&](int task, int step, int image) {
          tasks.run(first + task, thread, [&](int part) { all.run(program.steps[step], part, image); });
        });
      }
      return;
    }
    const auto alone = [&](int number) {
      const Worker one = worker(number);
      all_steps(program, one.count, times,
                [&](int, int step, int image) { one.run(program.steps[step], 0, image); });
    };
    for (int number = thread; number < layout.units; number += threads)
      if (tasks.claim(number, 0)) alone(number);
    for (int number = 0; number < layout.units; ++number)  // those of threads that have not come
      if (tasks.claim(number, 0)) alone(number);
  });
}

}  // namespace wirings
