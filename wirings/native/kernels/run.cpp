#include "program.h"

#include <chrono>
#include <numeric>

#include "product.h"
#include "row_tiles.h"
#include "threads.h"

namespace wirings {
namespace {

constexpr int kTileRows = 16;                // a tile of any width ends with a full vector
constexpr int kStemRows = 8;
constexpr int kMinRows = 3;                  // of a part, where maps are divided by rows
constexpr int kMaxMap = 16 * 1024 / 4;       // floats; larger maps are summed in tiles that fit into the cache
static_assert(kTileRows % kLanes == 0);

RowTile tile_of(const Step& step, int images) {
  const Shape shape = step.shape();
  const bool whole = step.kind == Kind::kPool || step.interleaved || shape.floats(1) <= kMaxMap;
  return {shape, whole ? shape.height : std::min(kTileRows, shape.height), step.interleaved ? images : 1};
}

// Floats that one thread needs besides the maps: tiles of sums, rows of images.
long scratch_floats(const Step& step, int images) {
  if (step.kind == Kind::kStem) {
    const RowTile tile{step.shape(), kStemRows, 1};
    return step.nodes * tile.floats() + StemRows::floats(step.channels, step.width);
  }
  if (step.kind == Kind::kHead) return 0;
  const RowTile tile = tile_of(step, images);
  return tile.floats() * (tile.rows < tile.shape.height ? step.nodes : 1);
}

// Offsets in a workspace.
struct Layout {
  int teams, members;   // teams of threads, each of which runs image groups; threads of a team
  int groups, largest;  // number of image groups; images of the largest
  long zeros = 0, scratch = 0, features = 0, buffers[kBuffers] = {};

  Layout(const Program& program, int images, int threads) {
    teams = images >= threads ? threads : 1;
    members = teams == 1 ? threads : 1;
    groups = (images + teams * kGroup - 1) / (teams * kGroup) * teams;
    largest = (images + groups - 1) / groups;
    for (int number = 0; number < program.count; ++number) {
      const Step& step = program.steps[number];
      scratch = std::max(scratch, rounded(scratch_floats(step, largest)));
      zeros = std::max(zeros, rounded(2 * step.width + 6 * kLanes));
      if (step.kind == Kind::kHead) features = rounded(step.from_nodes * largest);
      if (step.kind == Kind::kStem || step.kind == Kind::kHead) continue;
      long& buffer = buffers[step.from];
      buffer = std::max(buffer, rounded(step.from_nodes * step.shape().floats(step.interleaved ? largest : 1)));
    }
  }
  static long rounded(long floats) { return (floats + 63) / 64 * 64; }
  // Floats before a buffer; before the features, which follow all buffers.
  long before(int64_t number) const { return std::accumulate(buffers, buffers + number, 0L); }
  long group() const { return before(kBuffers) + features; }
  long total() const { return zeros + teams * members * scratch + teams * group(); }
};

// A thread's state for one image group.
struct Worker {
  const Program& program;
  const Images& images;
  const Layout& layout;
  float* zeros;
  float* scratch;
  float* group;
  int first, count;  // images of the group
  float* logits;

  Maps buffer(int64_t number, Shape shape, bool interleaved) const {
    return {group + layout.before(number), shape, interleaved ? count : 1};
  }
  float* features() const { return group + layout.before(kBuffers); }

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

// First node of part `part` of `parts` parts with about equal numbers of edges.
int first_node(const Step& step, const int32_t* starts, int part, int parts) {
  const auto cost = [&](int node) { return long(starts[node]) + 16L * node; };
  const long target = cost(step.nodes) * part / parts;
  int low = 0, high = step.nodes;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (cost(middle) < target)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// Large maps are divided by rows: then a thread reads few maps that another processor has just written, which costs
// more than the rows that both compute. Small maps are divided by nodes.
Part Worker::part(const Step& step, int number) const {
  const int parts = layout.members, rows = step.shape().halved(step.stride).height;
  if (step.kind == Kind::kStem || (step.kind == Kind::kNodes && !step.interleaved && rows / parts >= kMinRows))
    return {0, int(step.nodes), rows * number / parts, rows * (number + 1) / parts};
  const int32_t* starts = program.integers + step.starts;
  return {first_node(step, starts, number, parts), first_node(step, starts, number + 1, parts), 0, rows};
}

void Worker::stem(const Step& step, Part part, int image) const {
  if (part.first_row == part.last_row) return;
  const Shape shape = step.shape();
  const RowTile tile{shape, kStemRows, 1};
  const Walk walk{shape, int(step.stride), kStemRows, part};
  const Maps to = buffer(step.to, shape.halved(step.stride), step.interleaved_to);
  StemRows rows(scratch + step.nodes * tile.floats(), step.channels, step.in_stride, shape);
  const auto start = [&](int node) { return scratch + node * tile.floats() + tile.lead(); };
  for (int node = 0; node < step.nodes; ++node) clear_edges(tile, start(node));
  for (int y = walk.top(); y < walk.bottom(); y = walk.end(y)) {
    for (int row = y; row < walk.end(y); ++row) {
      rows.advance(images, first + image, row, row == walk.top());
      const auto compute = [&](auto one_row, int& node, int together) {
        for (; node + together <= step.nodes; node += together) {
          float* lines[4];
          for (int each = 0; each < together; ++each) lines[each] = start(node + each) + (row - y) * shape.pitch();
          one_row(rows, step.channels, row, shape.width, program.values + step.weights + node * step.channels * 9L,
                  program.values + step.biases + node, lines);
        }
      };
      int node = 0;
      if (kRegisters == 32) compute(stem_row<3>, node, 3);
      compute(stem_row<1>, node, 1);
    }
    for (int node = 0; node < step.nodes; ++node)
      filter_tile(walk, y, start(node), zeros, program.values + step.filters + 9L * node,
                   to.of(step.first + node, step.interleaved_to ? image : 0));
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
  const RowTile tile = tile_of(step, layout.largest);
  const Shape shape = tile.shape;
  const Walk walk{shape, int(step.stride), tile.rows, part};
  const bool whole = tile.rows == shape.height;
  const Maps from = buffer(step.from, shape, step.interleaved);
  const Maps to = buffer(step.to, shape.halved(step.stride), step.interleaved_to);
  const Sources sources{from.data, from.node()};
  const auto start_of = [&](int node) { return scratch + (whole ? 0 : node * tile.floats()) + tile.lead(); };
  for (int node = part.begin; node < part.end; ++node) clear_edges(tile, start_of(node));
  for (int y = walk.top(); y < walk.bottom(); y = walk.end(y)) {
    // Sources are read from a vector boundary on; the floats that this adds before the tile are never read.
    const long offset = long(y) * shape.pitch(), before = offset % kLanes;
    const long end = step.interleaved ? from.node() : long(walk.end(y)) * shape.pitch();
    const int vectors = (end - offset + before + kLanes - 1) / kLanes;
    for (int node = part.begin; node < part.end; ++node) {
      float* start = start_of(node);
      sum_edges(edges_of(program, step, node, shape.floats(kGroup)), sources, offset - before, vectors,
                program.integers + step.mask, start - before);
      for (int each = 0; each < from.images; ++each)
        filter_tile(walk, y, start + long(each) * shape.image(), zeros, program.values + step.filters + 9L * node,
                     to.of(step.first + node, step.interleaved ? each : step.interleaved_to ? image : 0));
    }
  }
}

void Worker::pool(const Step& step, Part part, int image) const {
  const Shape shape = step.shape();
  const Maps from = buffer(step.from, shape, step.interleaved);
  const int32_t* mask = program.integers + step.mask;
  const Sources sources{from.data, from.node()};
  for (int node = part.begin; node < part.end; ++node) {
    sum_edges(edges_of(program, step, node, shape.floats(kGroup)), sources, 0, from.node() / kLanes, mask, scratch);
    for (int each = 0; each < from.images; ++each) {
      const float* map = scratch + long(each) * shape.image();
      Vector totals{};
      int i = 0;
      for (; i + kLanes <= shape.rows(); i += kLanes) totals += load(map + i);
      float total = sum(totals);
      for (; i < shape.rows(); ++i) total += map[i];
      features()[(step.interleaved ? each : image) * step.nodes + node] = total / float(shape.height * shape.width);
    }
  }
}

void Worker::classify(const Step& step, int number) const {
  const int tiles = step.columns / kHeadTile;
  const auto run_head = [&](const auto* weights) {
    head(features(), count, step.from_nodes, weights, program.values + step.biases, step.columns,
         tiles * number / layout.members * kHeadTile, tiles * (number + 1) / layout.members * kHeadTile,
         logits + long(first) * step.nodes, step.nodes);
  };
  if (step.half)
    run_head(reinterpret_cast<const uint16_t*>(program.integers + step.weights));
  else
    run_head(program.values + step.weights);
}

// Number of steps that run image by image; the others run on all images of a group.
int steps_by_image(const Program& program) {
  int number = 0;
  while (!program.steps[number].interleaved && program.steps[number].kind != Kind::kHead) ++number;
  return number;
}

// Runs all steps for one image group; `step(task, number, image)` runs one of them. Returns their number.
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
  Tasks tasks(shared ? program.count * count : layout.groups, shared ? layout.members : 1);
  in_parallel(threads, [&](int thread) {
    float* scratch = workspace + layout.zeros + thread * layout.scratch;
    float* group = workspace + layout.zeros + threads * layout.scratch + (shared ? 0 : thread) * layout.group();
    double* times = thread == 0 ? seconds : nullptr;
    const auto worker = [&](int number) {
      const int first = long(count) * number / layout.groups, end = long(count) * (number + 1) / layout.groups;
      return Worker{program, images, layout, workspace + kLanes, scratch, group, first, end - first, logits};
    };
    if (shared) {
      for (int number = 0, first = 0; number < layout.groups; ++number) {
        const Worker state = worker(number);
        first += all_steps(program, state.count, times, [&](int task, int step, int image) {
          tasks.run(first + task, thread, [&](int part) { state.run(program.steps[step], part, image); });
        });
      }
      return;
    }
    const auto run_group = [&](int number) {
      const Worker state = worker(number);
      all_steps(program, state.count, times,
                [&](int, int step, int image) { state.run(program.steps[step], 0, image); });
    };
    for (int number = thread; number < layout.groups; number += threads)
      if (tasks.claim(number, 0)) run_group(number);
    for (int number = 0; number < layout.groups; ++number)  // those of threads that did not start
      if (tasks.claim(number, 0)) run_group(number);
  });
}

}  // namespace wirings
