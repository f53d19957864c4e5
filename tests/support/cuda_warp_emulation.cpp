// Runs the CUDA kernels on the CPU, warp by warp. The lanes of a warp are fibers: each runs up to the next operation of
// the whole warp, where it waits for the others. Reads and additions are checked for their bounds and alignment.
#include <ucontext.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct Index {
  unsigned x, y;
};
Index threadIdx, blockIdx, blockDim;

float2 make_float2(float x, float y) { return {x, y}; }
float __uint_as_float(unsigned bits) {
  float number;
  std::memcpy(&number, &bits, 4);
  return number;
}

struct __half {
  _Float16 number;
  __half() = default;
  explicit __half(float x) : number(static_cast<_Float16>(x)) {}
};
struct __half2 {
  __half low, high;
};
float __low2float(__half2 pair) { return static_cast<float>(pair.low.number); }
float __high2float(__half2 pair) { return static_cast<float>(pair.high.number); }

struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float x) {  // to the nearest, ties to even; NaN keeps its upper bits
    uint32_t word;
    std::memcpy(&word, &x, 4);
    bits = static_cast<uint16_t>(x == x ? (word + 0x7fff + (word >> 16 & 1)) >> 16 : word >> 16);
  }
};

std::string fault;

void expect(bool holds, const char* what) {
  if (!holds && fault.empty()) fault = what;
}

struct Memory {
  const char *begin, *end;

  bool contains(const void* at, size_t bytes) const {
    return begin <= at && static_cast<const char*>(at) + bytes <= end;
  }
};
std::vector<Memory> readable;
Memory addable;

template <typename T>
T __ldg(const T* at) {
  bool found = false;
  for (const Memory& memory : readable) found = found || memory.contains(at, sizeof(T));
  expect(found, "a read out of bounds");
  expect(reinterpret_cast<uintptr_t>(at) % sizeof(T) == 0, "a misaligned read");
  return found ? *at : T{};
}

template <typename T>
bool may_add(T* to) {
  expect(addable.contains(to, sizeof(T)), "an addition out of bounds");
  expect(reinterpret_cast<uintptr_t>(to) % sizeof(T) == 0, "a misaligned addition");
  return addable.contains(to, sizeof(T));
}
void atomicAdd(float* to, float x) {
  if (may_add(to)) *to += x;
}
void atomicAdd(float4* to, float4 x) {
  if (may_add(to)) *to = {to->x + x.x, to->y + x.y, to->z + x.z, to->w + x.w};
}

constexpr int kLanes = 32;

class Warp {
 public:
  void run(unsigned first_thread, const std::function<void()>& kernel) {
    kernel_ = &kernel;
    for (int i = 0; i < kLanes; ++i) {
      getcontext(&lanes_[i]);
      lanes_[i].uc_stack.ss_sp = stacks_[i].data();
      lanes_[i].uc_stack.ss_size = stacks_[i].size();
      lanes_[i].uc_link = &scheduler_;
      meeting_[i] = 0;
      makecontext(&lanes_[i], reinterpret_cast<void (*)()>(&Warp::enter), 0);
    }
    for (bool running = true; running;) {
      for (lane_ = 0; lane_ < kLanes; ++lane_) {
        threadIdx = {first_thread + lane_, 0};
        meeting_[lane_] = kFinished;  // unless it comes to another meeting
        swapcontext(&scheduler_, &lanes_[lane_]);
      }
      for (const int meeting : meeting_) expect(meeting == meeting_[0], "lanes at different operations of the warp");
      running = meeting_[0] != kFinished && fault.empty();
    }
  }

  void meet(int meeting) {
    meeting_[lane_] = meeting;
    swapcontext(&lanes_[lane_], &scheduler_);
  }

  float exchange(float given, int mask) {
    const int lane = lane_;
    given_[lane] = given;
    meet(mask);
    const float taken = given_[lane ^ mask];
    meet(-mask);
    return taken;
  }

 private:
  static constexpr int kFinished = 1000;
  static void enter();

  const std::function<void()>* kernel_ = nullptr;
  unsigned lane_ = 0;
  ucontext_t scheduler_;
  std::array<ucontext_t, kLanes> lanes_;
  std::array<int, kLanes> meeting_;
  std::array<float, kLanes> given_;
  std::array<std::array<char, 1 << 15>, kLanes> stacks_;
};
Warp warp;

void Warp::enter() { (*warp.kernel_)(); }
void __syncwarp() { warp.meet(0); }
float __shfl_xor_sync(unsigned, float given, int mask) { return warp.exchange(given, mask); }

using std::memcpy;
template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}

#include "cuda_launch.cuh"

namespace vitdense {

uint4 shared[48 * 1024 / sizeof(uint4)];

const auto start = [](auto kernel, const Grid& grid, const Problem& problem, const auto& argument) {
  expect(grid.shared <= sizeof(shared), "too much shared memory");
  blockDim = {grid.threads, 1};
  for (blockIdx.y = 0; blockIdx.y < grid.images; ++blockIdx.y) {
    for (blockIdx.x = 0; blockIdx.x < grid.blocks; ++blockIdx.x) {
      std::memset(shared, 0xff, sizeof(shared));  // NaN
      for (unsigned thread = 0; thread < grid.threads; thread += kLanes) {
        warp.run(thread, [&] { kernel(problem, argument); });
        if (!fault.empty()) return;
      }
    }
  }
};

template <typename T>
Memory memory(const T* begin, int64_t count) {
  return {reinterpret_cast<const char*>(begin), reinterpret_cast<const char*>(begin + count)};
}

int64_t bytes_of(Element element) { return element == Element::Float ? 4 : 2; }

// numbers: images, queries, heads, width, points, multiprocessors, images of a grid, Element, levels, H and W of each.
Call make_call(const int64_t* numbers, void* value, float* locations, float* attention) {
  const std::vector<int64_t> shapes(numbers + 9, numbers + 9 + 2 * numbers[8]);
  Call call = {describe({numbers[1], numbers[2], numbers[3], numbers[4], shapes}), static_cast<Element>(numbers[7]),
               numbers[0], numbers[5], numbers[6]};
  call.problem.value = value;
  call.problem.locations = reinterpret_cast<float2*>(locations);
  call.problem.attention = attention;
  const int64_t samples = call.images * call.problem.units * call.problem.samples;
  readable = {memory(static_cast<char*>(value), call.images * call.problem.image * bytes_of(call.element)),
              memory(locations, 2 * samples), memory(attention, samples)};
  fault.clear();
  return call;
}

}  // namespace vitdense

// Both return what went wrong, or an empty text.
extern "C" const char* emulate_forward(
    const int64_t* numbers, void* value, float* locations, float* attention, void* output) {
  const vitdense::Call call = vitdense::make_call(numbers, value, locations, attention);
  vitdense::run_forward(call, output, vitdense::start);
  return fault.c_str();
}

extern "C" const char* emulate_backward(
    const int64_t* numbers, void* value, float* locations, float* attention, void* grad_output, float* grad_value,
    float* grad_locations, float* grad_attention) {
  const vitdense::Call call = vitdense::make_call(numbers, value, locations, attention);
  const int64_t outputs = call.images * call.problem.units * call.problem.width;
  readable.push_back(vitdense::memory(static_cast<char*>(grad_output), outputs * vitdense::bytes_of(call.element)));
  addable = vitdense::memory(grad_value, call.images * call.problem.image);
  vitdense::run_backward(call, {grad_output, grad_value, reinterpret_cast<float2*>(grad_locations), grad_attention},
                         vitdense::start);
  return fault.c_str();
}
