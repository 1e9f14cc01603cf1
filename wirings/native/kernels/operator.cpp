// The network as operators of torch; see program.py for their arguments.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "product.h"
#include "program.h"

namespace {

using wirings::Program;

Program program_of(const at::Tensor& steps, const at::Tensor& integers, const at::Tensor& values) {
  TORCH_CHECK(steps.dim() == 2 && steps.size(1) == wirings::kFields && steps.size(0) > 0,
              "steps must be (steps, ", wirings::kFields, ") numbers");
  const auto cpu = [](const at::Tensor& tensor, at::ScalarType type) {
    return tensor.device().is_cpu() && tensor.scalar_type() == type && tensor.is_contiguous();
  };
  TORCH_CHECK(cpu(steps, at::kLong) && cpu(integers, at::kInt) && cpu(values, at::kFloat),
              "a program consists of contiguous tensors on the CPU: int64 steps, int32 integers, float32 values");
  return {reinterpret_cast<const wirings::Step*>(steps.const_data_ptr<int64_t>()), int(steps.size(0)),
          integers.const_data_ptr<int32_t>(), values.const_data_ptr<float>()};
}

int64_t workspace(const at::Tensor& steps, const at::Tensor& integers, const at::Tensor& values, int64_t images,
                  int64_t threads) {
  TORCH_CHECK(images > 0 && threads > 0, "images and threads must be positive");
  return wirings::workspace_floats(program_of(steps, integers, values), images, threads);
}

at::Tensor run(const at::Tensor& images, const at::Tensor& steps, const at::Tensor& integers, const at::Tensor& values,
               const at::Tensor& normalisation, at::Tensor& space, int64_t classes, int64_t threads,
               const std::optional<at::Tensor>& seconds) {
  const Program program = program_of(steps, integers, values);
  const wirings::Step& stem = program.steps[0];
  const wirings::Step& last = program.steps[program.count - 1];
  const bool bytes = images.scalar_type() == at::kByte;
  TORCH_CHECK(images.device().is_cpu() && images.is_contiguous() && (bytes || images.scalar_type() == at::kFloat),
              "images must be a contiguous tensor of float32 or uint8 on the CPU");
  TORCH_CHECK(images.dim() == 4 && images.size(bytes ? 3 : 1) == stem.channels, "images must have ", stem.channels,
              " channels");
  const int count = images.size(0), height = images.size(bytes ? 1 : 2), width = images.size(bytes ? 2 : 3);
  TORCH_CHECK((height + stem.in_stride - 1) / stem.in_stride == stem.height &&
                  (width + stem.in_stride - 1) / stem.in_stride == stem.width,
              "the program is for images of another size");
  TORCH_CHECK(classes == last.nodes, "the program is for ", last.nodes, " classes");
  TORCH_CHECK(space.is_contiguous() && space.scalar_type() == at::kFloat &&
                  space.numel() >= workspace(steps, integers, values, count, threads),
              "the workspace is too small");
  TORCH_CHECK(!bytes || (normalisation.is_contiguous() && normalisation.scalar_type() == at::kFloat &&
                         normalisation.numel() == 2 * stem.channels),
              "uint8 images need a scale and a shift for each channel");
  at::Tensor logits = at::empty({count, last.nodes}, images.options().dtype(at::kFloat));
  wirings::Images input{bytes ? nullptr : images.const_data_ptr<float>(),
                        bytes ? images.const_data_ptr<uint8_t>() : nullptr,
                        int(stem.channels),
                        height,
                        width,
                        bytes ? normalisation.const_data_ptr<float>() : nullptr,
                        bytes ? normalisation.const_data_ptr<float>() + stem.channels : nullptr};
  TORCH_CHECK(!seconds || (seconds->is_contiguous() && seconds->scalar_type() == at::kDouble &&
                           seconds->numel() == program.count),
              "seconds must have a float64 number for each step");
  wirings::run(program, input, count, space.mutable_data_ptr<float>(), threads, logits.mutable_data_ptr<float>(),
               seconds ? seconds->mutable_data_ptr<double>() : nullptr);
  return logits;
}

at::Tensor product(const at::Tensor& sources, const at::Tensor& starts, const at::Tensor& columns,
                   const at::Tensor& weights, int64_t threads) {
  const auto is = [](const at::Tensor& tensor, int dimensions, at::ScalarType type) {
    return tensor.device().is_cpu() && tensor.dim() == dimensions && tensor.scalar_type() == type &&
           tensor.is_contiguous();
  };
  TORCH_CHECK(is(sources, 2, at::kFloat) && is(weights, 1, at::kFloat),
              "sources (nodes, pixels) and weights (edges) must be contiguous tensors of float32 on the CPU");
  TORCH_CHECK(is(starts, 1, at::kInt) && is(columns, 1, at::kInt) && starts.numel() > 0 &&
                  columns.numel() == weights.numel(),
              "starts (targets + 1) and columns (edges) must be contiguous tensors of int32 on the CPU");
  const int64_t targets = starts.numel() - 1;
  at::Tensor result = at::empty({targets, sources.size(1)}, sources.options());
  wirings::multiply({starts.const_data_ptr<int32_t>(), columns.const_data_ptr<int32_t>(),
                     weights.const_data_ptr<float>(), int(targets)},
                    sources.const_data_ptr<float>(), sources.size(1), result.mutable_data_ptr<float>(), threads);
  return result;
}

}  // namespace

TORCH_LIBRARY(wirings_native, library) {
  library.def("lanes() -> int", []() -> int64_t { return wirings::kLanes; });
  library.def("workspace(Tensor steps, Tensor integers, Tensor values, int images, int threads) -> int");
  library.def("product(Tensor sources, Tensor starts, Tensor columns, Tensor weights, int threads) -> Tensor");
  library.def(
      "run(Tensor images, Tensor steps, Tensor integers, Tensor values, Tensor normalisation, Tensor(a!) space, "
      "int classes, int threads, Tensor(b!)? seconds=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(wirings_native, CPU, library) {
  library.impl("workspace", workspace);
  library.impl("product", product);
  library.impl("run", run);
}
