// The kernels of each kind of processor that this library was compiled for.
#include "steps.h"

namespace wirings {

#define WIRINGS_DECLARE(target)                                 \
  namespace target {                                            \
  void run_part(const Call&, int, int, int, int);               \
  void multiply_part(const Matrix&, const float*, int64_t, float*, int, int); \
  extern const int lanes;                                       \
  }

#if defined(WIRINGS_SEVERAL_TARGETS)
WIRINGS_DECLARE(avx512)
WIRINGS_DECLARE(avx2)
WIRINGS_DECLARE(baseline)
#else
WIRINGS_DECLARE(native)
#endif

const Target& best_target() {
#if defined(WIRINGS_SEVERAL_TARGETS)
  static const Target target = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
      return Target{"avx512", avx512::lanes, avx512::run_part, avx512::multiply_part};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      return Target{"avx2", avx2::lanes, avx2::run_part, avx2::multiply_part};
    return Target{"baseline", baseline::lanes, baseline::run_part, baseline::multiply_part};
  }();
#else
  static const Target target{"native", native::lanes, native::run_part, native::multiply_part};
#endif
  return target;
}

}  // namespace wirings
