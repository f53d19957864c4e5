// The operators vitdense_cuda::forward and ::backward, on PyTorch's stable ABI.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>
#include <vector>

#include "cuda_launch.cuh"

namespace vitdense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::accelerator::DeviceGuard;

Element element_of(const Tensor& value) {
  switch (value.scalar_type()) {
    case ScalarType::Float: return Element::Float;
    case ScalarType::Half: return Element::Half;
    case ScalarType::BFloat16: return Element::BFloat16;
    default: STD_TORCH_CHECK(false, "value: expected float32, float16 or bfloat16");
  }
}

void check(const char* name, const Tensor& tensor, ScalarType dtype, int32_t device,
           const std::vector<int64_t>& sizes) {
  STD_TORCH_CHECK(tensor.scalar_type() == dtype, name, ": expected another dtype beside this value");
  STD_TORCH_CHECK(tensor.is_cuda() && tensor.get_device_index() == device, name, ": expected device cuda:", device);
  STD_TORCH_CHECK(tensor.is_contiguous(), name, ": expected a contiguous tensor");
  STD_TORCH_CHECK(tensor.dim() == static_cast<int64_t>(sizes.size()), name, ": expected ", sizes.size(),
                  " dimensions, found ", tensor.dim());
  for (size_t i = 0; i < sizes.size(); ++i) {
    STD_TORCH_CHECK(tensor.size(i) == sizes[i], name, ": expected ", sizes[i], " in dimension ", i, ", found ",
                    tensor.size(i));
  }
}

// Checks what would be read or written out of bounds.
Sizes checked_sizes(const Tensor& value, const std::vector<int64_t>& spatial_shapes, const Tensor& locations,
                    const Tensor& attention) {
  STD_TORCH_CHECK(value.dim() == 4, "value: expected (B, S, M, D)");
  STD_TORCH_CHECK(attention.dim() == 5, "attention_weights: expected (B, Q, M, L, P)");
  const int32_t device = value.get_device_index();
  const int64_t images = value.size(0), pixels = value.size(1), heads = value.size(2), width = value.size(3);
  const int64_t queries = attention.size(1), points = attention.size(4);
  const int64_t levels = static_cast<int64_t>(spatial_shapes.size()) / 2;
  check("value", value, value.scalar_type(), device, {images, pixels, heads, width});
  check("sampling_locations", locations, ScalarType::Float, device, {images, queries, heads, levels, points, 2});
  check("attention_weights", attention, ScalarType::Float, device, {images, queries, heads, levels, points});
  STD_TORCH_CHECK(heads > 0 && width > 0 && points > 0, "value: expected at least one head, channel and point");
  STD_TORCH_CHECK(spatial_shapes.size() % 2 == 0 && 0 < levels && levels <= kMaxLevels,
                  "spatial_shapes: expected heights and widths of 1 to ", kMaxLevels, " levels, found ",
                  spatial_shapes.size(), " numbers");
  STD_TORCH_CHECK(pixels * heads * width < kOutside, "value: expected less than 2^32 - 1 elements an image, found ",
                  pixels * heads * width);
  STD_TORCH_CHECK(queries * heads <= INT32_MAX,
                  "sampling_locations: expected less than 2^31 queries times heads, found ", queries * heads);
  STD_TORCH_CHECK(levels * points <= kMaxSamples, "sampling_locations: expected at most ", kMaxSamples,
                  " levels times points, found ", levels * points);
  int64_t sum = 0;
  for (int64_t i = 0; i < levels; ++i) {
    const int64_t height = spatial_shapes[2 * i], width = spatial_shapes[2 * i + 1];
    STD_TORCH_CHECK(0 < height && height <= INT32_MAX && 0 < width && width <= INT32_MAX,
                    "spatial_shapes: expected sizes from 1 to 2^31 - 1, found ", height, " x ", width);
    sum += height * width;
  }
  STD_TORCH_CHECK(sum == pixels, "spatial_shapes: expected ", pixels, " pixels as in value, found ", sum);
  return {queries, heads, width, points, spatial_shapes};
}

int64_t device_limit(cudaDeviceAttr attribute, int32_t device) {
  int number = 0;
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&number, attribute, device));
  return number;
}

Call call_of(const Tensor& value, const std::vector<int64_t>& spatial_shapes, const Tensor& locations,
             const Tensor& attention) {
  const int32_t device = value.get_device_index();
  Call call = {describe(checked_sizes(value, spatial_shapes, locations, attention)), element_of(value), value.size(0),
               device_limit(cudaDevAttrMultiProcessorCount, device), device_limit(cudaDevAttrMaxGridDimY, device)};
  call.problem.value = value.const_data_ptr();
  call.problem.locations = static_cast<const float2*>(locations.const_data_ptr());
  call.problem.attention = static_cast<const float*>(attention.const_data_ptr());
  return call;
}

// Kernels move 16 bytes at multiples of 16; a view need not begin there.
Tensor aligned(const Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0 ? tensor : torch::stable::clone(tensor);
}

// Starts kernels on the current stream of the current device.
class Starter {
 public:
  explicit Starter(int32_t device) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream_));
  }

  template <typename Argument>
  void operator()(void (*kernel)(Problem, Argument), const Grid& grid, const Problem& problem,
                  Argument argument) const {
    const dim3 blocks(grid.blocks, grid.images);
    kernel<<<blocks, grid.threads, grid.shared, static_cast<cudaStream_t>(stream_)>>>(problem, argument);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  void* stream_ = nullptr;
};

Tensor forward(const Tensor& given_value, const std::vector<int64_t>& spatial_shapes, const Tensor& given_locations,
               const Tensor& attention) {
  const Tensor value = aligned(given_value), locations = aligned(given_locations);
  const Call call = call_of(value, spatial_shapes, locations, attention);
  const DeviceGuard guard(value.get_device_index());
  Tensor output = torch::stable::new_empty(value, {value.size(0), attention.size(1), value.size(2) * value.size(3)});
  run_forward(call, output.mutable_data_ptr(), Starter(value.get_device_index()));
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& given_grad_output, const Tensor& given_value,
                                            const std::vector<int64_t>& spatial_shapes, const Tensor& given_locations,
                                            const Tensor& attention) {
  const Tensor grad_output = aligned(given_grad_output), value = aligned(given_value);
  const Tensor locations = aligned(given_locations);
  const Call call = call_of(value, spatial_shapes, locations, attention);
  const int32_t device = value.get_device_index();
  check("grad_output", grad_output, value.scalar_type(), device,
        {value.size(0), attention.size(1), value.size(2) * value.size(3)});
  const DeviceGuard guard(device);
  Tensor grad_value = torch::stable::new_zeros(value, value.sizes(), ScalarType::Float);
  Tensor grad_locations = torch::stable::new_empty(locations, locations.sizes());
  Tensor grad_attention = torch::stable::new_empty(attention, attention.sizes());
  const Gradients grads = {grad_output.const_data_ptr(), static_cast<float*>(grad_value.mutable_data_ptr()),
                           static_cast<float2*>(grad_locations.mutable_data_ptr()),
                           static_cast<float*>(grad_attention.mutable_data_ptr())};
  run_backward(call, grads, Starter(device));
  return {torch::stable::to(grad_value, value.scalar_type()), grad_locations, grad_attention};
}

}  // namespace
}  // namespace vitdense

STABLE_TORCH_LIBRARY(vitdense_cuda, library) {
  library.def(
      "forward(Tensor value, int[] spatial_shapes, Tensor sampling_locations, Tensor attention_weights) -> Tensor");
  library.def(
      "backward(Tensor grad_output, Tensor value, int[] spatial_shapes, Tensor sampling_locations, "
      "Tensor attention_weights) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(vitdense_cuda, CUDA, library) {
  library.impl("forward", TORCH_BOX(&vitdense::forward));
  library.impl("backward", TORCH_BOX(&vitdense::backward));
}
