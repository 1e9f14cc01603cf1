#include "network.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#include <unistd.h>

#include "threads.h"

namespace wirings {
namespace {

constexpr size_t kPage = 2 << 20;

// Zeros, in large pages if the system has them: sources are read in no order, each from another page.
float* allocate(int64_t floats) {
  const size_t bytes = sizeof(float) * floats;
  void* memory = std::aligned_alloc(bytes < kPage ? 64 : kPage, (bytes + kPage - 1) / kPage * kPage);
  if (!memory) throw std::bad_alloc();
#if defined(__linux__)
  if (bytes >= kPage) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  std::memset(memory, 0, bytes);
  return static_cast<float*>(memory);
}

std::vector<int32_t> mask_of(const Geometry& geometry, int images) {
  std::vector<int32_t> mask(geometry.stride(images) + 2 * Geometry::kAlignment);
  for (int image = 0; image < images; ++image)
    for (int64_t row = 0; row < geometry.height; ++row) {
      const auto first = mask.begin() + image * geometry.image() + row * geometry.pitch();
      std::fill(first, first + geometry.width, -1);
    }
  return mask;
}

std::vector<int32_t> offsets_of(const Program& program, const Step& step, int images) {
  if (step.kind != Kind::kSum) return {};
  const Geometry& from = program.geometries[step.from];
  const int64_t stride = from.stride(from.grouped ? images : 1);
  std::vector<int32_t> offsets(step.num_edges);
  for (int64_t edge = 0; edge < step.num_edges; ++edge) {
    const int32_t tap = program.integers[step.taps + edge];
    offsets[edge] = program.integers[step.edges + edge] * stride + tap_rows(tap) * from.pitch() + tap_columns(tap);
  }
  return offsets;
}

std::vector<float> bias_maps_of(const Program& program, const Step& step, int images) {
  if (step.kind != Kind::kSum || step.bias_maps < 0) return {};
  const Geometry& from = program.geometries[step.from];
  const int count = from.grouped ? images : 1;
  const int64_t stride = from.stride(count);
  std::vector<float> maps(step.count * stride + 2 * Geometry::kAlignment);
  const float* next = program.values.data() + step.bias_maps;
  for (int64_t target = 0; target < step.count; ++target)
    for (int64_t row = 0; row < from.height; ++row, next += from.width)
      for (int image = 0; image < count; ++image)
        std::copy(next, next + from.width,
                  maps.begin() + target * stride + image * from.image() + row * from.pitch());
  return maps;
}

Program checked(Program program) {
  const std::string reason = check(program);
  if (!reason.empty()) throw std::invalid_argument(reason);
  return program;
}

int64_t scratch_of(const Program& program, const Step& step, int images) {
  if (step.kind == Kind::kPool) {
    const Geometry &from = program.geometries[step.from], &to = program.geometries[step.to];
    const int64_t widest = std::max(from.width, (to.width + 32) * step.stride + step.size);
    return Geometry::rounded(step.padding + widest) + Geometry::kAlignment;
  }
  if (step.kind == Kind::kSum && step.size) {
    const Geometry& from = program.geometries[step.from];
    return (kMaxTargets + 1) * (from.stride(from.grouped ? images : 1) + from.lead()) + 8 * Geometry::kAlignment;
  }
  if (step.kind != Kind::kLinear) return 0;
  const int64_t columns = step.columns ? step.columns : step.count;
  return Geometry::rounded(images * step.inputs) + Geometry::rounded(images * columns) + Geometry::kAlignment;
}

}  // namespace

Prepared prepare(const Program& program, int images) {
  Prepared prepared{images, {}, 0, {}, {}, {}, 0};
  for (const Geometry& geometry : program.geometries) {
    const int count = prepared.images_of(geometry);
    prepared.starts.push_back(prepared.floats + geometry.lead());
    prepared.floats += Geometry::rounded(geometry.floats(count));
    prepared.masks.push_back(mask_of(geometry, count));
  }
  for (const Step& step : program.steps) {
    prepared.offsets.push_back(offsets_of(program, step, images));
    prepared.bias_maps.push_back(bias_maps_of(program, step, images));
    prepared.scratch = std::max(prepared.scratch, scratch_of(program, step, images));
  }
  return prepared;
}

void Network::Free::operator()(float* memory) const { std::free(memory); }

Network::Network(Program program, const Target& target)
    : program_(checked(std::move(program))), target_(target), by_image_(steps_by_image(program_)),
      lock_(new Lock{int(getpid()), {}}) {}

Network::~Network() {
  Lock* lock = lock_.load();
  if (lock->process == int(getpid())) delete lock;  // a mutex that is held forever cannot be destroyed
}

std::mutex& Network::busy() {
  Lock* lock = lock_.load();
  if (lock->process != int(getpid())) {
    Lock* own = new Lock{int(getpid()), {}};
    if (!lock_.compare_exchange_strong(lock, own)) delete own;
  }
  return lock_.load()->busy;
}

const Prepared& Network::prepared(int images) {
  auto& entry = prepared_[images];
  if (!entry) entry = std::make_unique<Prepared>(prepare(program_, images));
  return *entry;
}

float* Network::workspace(const Prepared& prepared, size_t number) {
  auto& all = workspaces_[prepared.images];
  while (all.size() <= number) all.emplace_back(allocate(prepared.floats));
  return all[number].get();
}

// The groups of a call, and what the threads need for them. With fewer images than threads, all threads share each
// group; else each thread runs its own ones.
struct Network::Groups {
  int64_t images;
  int threads, teams, members;
  int64_t count;

  Groups(int64_t images, int threads, bool grouped) : images(images), threads(threads) {
    teams = images >= threads ? threads : 1;
    members = teams == 1 ? threads : 1;
    const int64_t largest = grouped ? kGroup : 1;
    count = std::min(images, (images + teams * largest - 1) / (teams * largest) * teams);
  }
  int64_t first(int64_t group) const { return images * group / count; }
  int size(int64_t group) const { return int(first(group + 1) - first(group)); }
};

void Network::run(const Input* inputs, float* const* outputs, int64_t images, int threads, double* seconds) {
  if (images <= 0) return;
  const std::lock_guard<std::mutex> lock(busy());
  const int number = int(program_.steps.size());
  const Groups groups(images, std::max(threads, 1), by_image_ < number);
  const bool shared = groups.members > 1;
  // Workspaces, places and scratch for all threads, so that they allocate nothing.
  std::vector<const Prepared*> places(groups.count);
  int64_t scratch_floats = 0;
  for (int64_t group = 0; group < groups.count; ++group) {
    places[group] = &prepared(groups.size(group));
    scratch_floats = std::max(scratch_floats, places[group]->scratch);
    for (int team = 0; team < groups.teams; ++team) workspace(*places[group], team);
  }
  scratch_.resize(std::max<size_t>(scratch_.size(), groups.threads));
  for (auto& scratch : scratch_)
    if (int64_t(scratch.size()) <= scratch_floats) scratch.resize(scratch_floats + 1);

  Tasks tasks(int(shared ? number * images : groups.count), shared ? groups.members : 1);
  in_parallel(groups.threads, [&](int thread) {
    double* times = thread == 0 ? seconds : nullptr;
    int task = 0;
    const auto run_group = [&](int64_t group) {
      const Prepared& prepared = *places[group];
      float* space = workspaces_.find(prepared.images)->second[shared ? 0 : thread].get();
      const Call call{program_, prepared, inputs, outputs, space, scratch_[thread].data(), groups.first(group)};
      const auto timed = [&](int step, int image) {
        const auto start = std::chrono::steady_clock::now();
        if (shared)
          tasks.run(task++, thread, [&](int part) { target_.run_part(call, step, image, part, groups.members); });
        else
          target_.run_part(call, step, image, 0, 1);
        if (times)
          times[step] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      };
      for (int image = 0; image < prepared.images; ++image)
        for (int step = 0; step < by_image_; ++step) timed(step, image);
      for (int step = by_image_; step < number; ++step) timed(step, 0);
    };
    if (shared) {
      for (int64_t group = 0; group < groups.count; ++group) run_group(group);
      return;
    }
    for (int64_t group = thread; group < groups.count; group += groups.threads)
      if (tasks.claim(int(group), 0)) run_group(group);
    for (int64_t group = 0; group < groups.count; ++group)  // those of threads that did not start
      if (tasks.claim(int(group), 0)) run_group(group);
  });
}

}  // namespace wirings
