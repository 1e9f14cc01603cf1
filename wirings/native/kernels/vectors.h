// Vectors of floats, as wide as the processor's registers, by the vector extensions of GCC and Clang.
//
// The files that include this one are compiled once for each kind of processor, each time in another namespace.
#pragma once

#include <cstdint>
#include <cstring>

#ifndef WIRINGS_TARGET
#define WIRINGS_TARGET native
#endif

namespace wirings {
namespace WIRINGS_TARGET {

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

// bfloat16 is the upper half of a float.
inline Vector load(const uint16_t* from) {
  typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
  typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  return (Vector)(__builtin_convertvector(halves, Words) << 16);
}

inline void store(float* to, Vector value) { std::memcpy(to, &value, sizeof value); }

// The difference to 0 is the number itself, also of -0, so that compilers omit it; they may not omit a sum with 0.
inline Vector broadcast(float value) { return value - Vector{}; }

inline Vector largest(Vector one, Vector other) { return one > other ? one : other; }

inline Vector masked(Vector value, const int32_t* mask) {  // all bits of an element of `mask` are set, or none
  Bits bits;
  std::memcpy(&bits, mask, sizeof bits);
  return (Vector)((Bits)value & bits);
}

inline float sum(Vector value) {
  float total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += value[lane];
  return total;
}

// Every second float of two vectors, from `kFirst` on: 0 or 1.
template <int kFirst>
inline Vector every_second(Vector low, Vector high) {
#if defined(__clang__)
  Vector result;
  for (int lane = 0; lane < kLanes / 2; ++lane) {
    result[lane] = low[2 * lane + kFirst];
    result[kLanes / 2 + lane] = high[2 * lane + kFirst];
  }
  return result;
#else
  Bits places;
  for (int lane = 0; lane < kLanes; ++lane) places[lane] = 2 * lane + kFirst;
  return __builtin_shuffle(low, high, places);
#endif
}

inline Vector every_second(const float* from) { return every_second<0>(load(from), load(from + kLanes)); }

constexpr int64_t vectors_of(int64_t floats) { return (floats + kLanes - 1) / kLanes; }

}  // namespace WIRINGS_TARGET
}  // namespace wirings
