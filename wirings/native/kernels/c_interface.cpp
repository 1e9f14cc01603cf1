// The functions of wirings.h.
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "file.h"
#include "network.h"
#include "threads.h"
#include "wirings.h"

struct wirings_network {
  struct Shape {
    int64_t channels, height, width;
  };
  std::unique_ptr<wirings::Network> network;
  std::vector<Shape> inputs, outputs;
};

namespace {

thread_local std::string error;

int failed(const std::string& reason) {
  error = reason;
  return 1;
}

// Runs `work`, and makes an error of what it throws.
template <typename Work>
int guarded(const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::bad_alloc&) {
    return failed("there is not enough memory");
  } catch (const std::exception& reason) {
    return failed(reason.what());
  }
}

// Shapes of the caller's tensors. All steps of a tensor must agree.
void collect_shapes(const wirings::Program& program, wirings_network& result) {
  for (const wirings::Step& step : program.steps) {
    const bool reads = step.kind == wirings::Kind::kImport;
    if (!reads && step.kind != wirings::Kind::kExport) continue;
    const wirings::Geometry& geometry = program.geometries[reads ? step.to : step.from];
    auto& shapes = reads ? result.inputs : result.outputs;
    if (shapes.size() <= size_t(step.inputs)) shapes.resize(step.inputs + 1, {0, 0, 0});
    auto& shape = shapes[step.inputs];
    const wirings_network::Shape own{step.channels, geometry.height, geometry.width};
    if (shape.channels && (shape.channels != own.channels || shape.height != own.height || shape.width != own.width))
      throw std::invalid_argument("steps disagree about the shape of a tensor");
    shape = own;
  }
  for (const auto* shapes : {&result.inputs, &result.outputs})
    for (const auto& shape : *shapes)
      if (!shape.channels) throw std::invalid_argument("a tensor is read or written by no step");
}

int copy_shape(const std::vector<wirings_network::Shape>& shapes, int number, int64_t shape[3]) {
  if (number < 0 || size_t(number) >= shapes.size()) return failed("there is no such tensor");
  shape[0] = shapes[number].channels;
  shape[1] = shapes[number].height;
  shape[2] = shapes[number].width;
  return 0;
}

int run(wirings_network* network, const std::vector<wirings::Input>& inputs, float* const* outputs, int64_t images,
        int threads, double* seconds) {
  if (images < 0) return failed("the number of images is negative");
  return guarded([&] { network->network->run(inputs.data(), outputs, images, threads, seconds); });
}

}  // namespace

extern "C" {

const char* wirings_error(void) { return error.c_str(); }

int wirings_open(const void* bytes, size_t size, wirings_network** network) {
  *network = nullptr;
  return guarded([&] {
    auto result = std::make_unique<wirings_network>();
    result->network =
        std::make_unique<wirings::Network>(wirings::read_program(static_cast<const unsigned char*>(bytes), size));
    collect_shapes(result->network->program(), *result);
    *network = result.release();
  });
}

int wirings_open_file(const char* path, wirings_network** network) {
  *network = nullptr;
  std::FILE* file = std::fopen(path, "rb");
  if (!file) return failed(std::string(path) + " cannot be opened");
  std::vector<unsigned char> bytes;
  const int status = guarded([&] {
    unsigned char buffer[1 << 16];
    for (size_t count; (count = std::fread(buffer, 1, sizeof buffer, file)) > 0;)
      bytes.insert(bytes.end(), buffer, buffer + count);
    if (std::ferror(file)) throw std::runtime_error(std::string(path) + " cannot be read");
  });
  std::fclose(file);
  return status ? status : wirings_open(bytes.data(), bytes.size(), network);
}

void wirings_close(wirings_network* network) { delete network; }

int wirings_inputs(const wirings_network* network) { return int(network->inputs.size()); }
int wirings_outputs(const wirings_network* network) { return int(network->outputs.size()); }
int wirings_input_shape(const wirings_network* network, int input, int64_t shape[3]) {
  return copy_shape(network->inputs, input, shape);
}
int wirings_output_shape(const wirings_network* network, int output, int64_t shape[3]) {
  return copy_shape(network->outputs, output, shape);
}
int wirings_steps(const wirings_network* network) { return int(network->network->program().steps.size()); }

int wirings_run_timed(wirings_network* network, const float* const* inputs, float* const* outputs, int64_t images,
                      int threads, double* seconds) {
  std::vector<wirings::Input> all;
  for (size_t input = 0; input < network->inputs.size(); ++input)
    all.push_back({inputs[input], nullptr, nullptr, nullptr});
  return run(network, all, outputs, images, threads, seconds);
}

int wirings_run(wirings_network* network, const float* const* inputs, float* const* outputs, int64_t images,
                int threads) {
  return wirings_run_timed(network, inputs, outputs, images, threads, nullptr);
}

int wirings_run_bytes(wirings_network* network, const uint8_t* images_data, const float* scale, const float* shift,
                      float* const* outputs, int64_t images, int threads) {
  if (network->inputs.size() != 1) return failed("the network has not one input");
  return run(network, {{nullptr, images_data, scale, shift}}, outputs, images, threads, nullptr);
}

int wirings_product(const int32_t* starts, const int32_t* columns, const float* weights, const float* sources,
                    float* to, int64_t targets, int64_t pixels, int threads) {
  return guarded([&] {
    const wirings::Matrix matrix{starts, columns, weights, targets};
    const int parts = threads < 1 ? 1 : threads;
    wirings::Tasks tasks(1, parts);
    wirings::in_parallel(parts, [&](int thread) {
      tasks.run(0, thread, [&](int part) {
        wirings::best_target().multiply_part(matrix, sources, pixels, to, part, parts);
      });
    });
  });
}

const char* wirings_target(void) { return wirings::best_target().name; }

}  // extern "C"
