// Vectors of floats, as wide as the processor's registers, by the vector extensions of GCC and Clang.
#pragma once

#include <cstdint>
#include <cstring>

namespace wirings {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kRegisters = 32;
#else
constexpr int kLanes = 4, kRegisters = 16;
#endif

typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef int32_t Bits __attribute__((vector_size(4 * kLanes)));

inline Vector load(const float* from) {  // at any address
  Vector result;
  std::memcpy(&result, from, sizeof result);
  return result;
}

inline void store(float* to, Vector value) { std::memcpy(to, &value, sizeof value); }

inline void store_some(float* to, Vector value, int count) {
  std::memcpy(to, &value, sizeof(float) * (count < kLanes ? count : kLanes));
}

inline Vector broadcast(float value) { return Vector{} + value; }

inline Vector relu(Vector value) { return value < 0.0f ? Vector{} : value; }  // a NaN stays one

inline Vector masked(Vector value, const int32_t* mask) {  // bits of `mask` are all set or all clear
  Bits bits;
  std::memcpy(&bits, mask, sizeof bits);
  return (Vector)((Bits)value & bits);
}

inline float sum(Vector value) {
  float total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += value[lane];
  return total;
}

// Every second of 2 * kLanes floats: from[0], from[2], …
inline Vector every_second(const float* from) {
  const Vector low = load(from), high = load(from + kLanes);
#if defined(__clang__)
  Vector result;
  for (int lane = 0; lane < kLanes / 2; ++lane) {
    result[lane] = low[2 * lane];
    result[kLanes / 2 + lane] = high[2 * lane];
  }
  return result;
#else
  Bits places;
  for (int lane = 0; lane < kLanes; ++lane) places[lane] = 2 * lane;
  return __builtin_shuffle(low, high, places);
#endif
}

constexpr int rounded_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace wirings
