// The content of a `.wiring` file; docs/inference.md describes it.
#pragma once

#include <cstddef>

#include "program.h"

namespace wirings {

constexpr int64_t kFileVersion = 1;

// The program of a file. Throws std::invalid_argument if the bytes are not one of this version. The program is not
// checked.
Program read_program(const unsigned char* bytes, size_t size);

}  // namespace wirings
