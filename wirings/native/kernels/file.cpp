#include "file.h"

#include <cstring>
#include <stdexcept>

namespace wirings {
namespace {

constexpr char kMagic[] = "wirings\n";  // eight bytes
constexpr size_t kGeometryFields = sizeof(Geometry) / sizeof(int64_t);

// The file as it is in memory: numbers are little-endian.
class Reader {
 public:
  Reader(const unsigned char* bytes, size_t size) : next_(bytes), left_(size) {}

  template <typename Number>
  std::vector<Number> read(int64_t count) {
    if (count < 0 || size_t(count) > left_ / sizeof(Number)) throw std::invalid_argument("the file ends too early");
    std::vector<Number> numbers(count);
    const size_t bytes = sizeof(Number) * count;
    if (bytes) std::memcpy(numbers.data(), next_, bytes);
    next_ += bytes;
    left_ -= bytes;
    return numbers;
  }
  size_t left() const { return left_; }

 private:
  const unsigned char* next_;
  size_t left_;
};

}  // namespace

Program read_program(const unsigned char* bytes, size_t size) {
  const uint16_t one = 1;
  if (!*reinterpret_cast<const unsigned char*>(&one))
    throw std::invalid_argument("files of wirings cannot be read on a big-endian machine");
  Reader reader(bytes, size);
  const std::vector<char> magic = reader.read<char>(8);
  if (std::memcmp(magic.data(), kMagic, 8)) throw std::invalid_argument("it is not a file of wirings");
  const std::vector<int64_t> head = reader.read<int64_t>(6);
  if (head[0] != kFileVersion)
    throw std::invalid_argument("its version is " + std::to_string(head[0]) + "; this library reads version " +
                                std::to_string(kFileVersion));
  if (head[1] != kFields) throw std::invalid_argument("its steps have another number of fields");
  Program program;
  const int64_t geometries = head[2], steps = head[3];
  if (geometries < 0 || geometries > 1 << 20 || steps < 0 || steps > 1 << 20)
    throw std::invalid_argument("its counts are damaged");
  const std::vector<int64_t> maps = reader.read<int64_t>(geometries * int64_t(kGeometryFields));
  const std::vector<int64_t> fields = reader.read<int64_t>(steps * kFields);
  program.integers = reader.read<int32_t>(head[4]);
  program.values = reader.read<float>(head[5]);
  if (reader.left()) throw std::invalid_argument("it does not end where it should");
  program.geometries.resize(geometries);
  program.steps.resize(steps);
  if (geometries) std::memcpy(program.geometries.data(), maps.data(), maps.size() * sizeof(int64_t));
  if (steps) std::memcpy(static_cast<void*>(program.steps.data()), fields.data(), fields.size() * sizeof(int64_t));
  return program;
}

}  // namespace wirings
