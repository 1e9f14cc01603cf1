// Runs programs from a file and compares logits: for builds with sanitizers, which cannot be loaded into Python.
//
//     check FILE...
//
// A file: eight int64 numbers (steps, integers, values, images, channels, height, width, classes), then the
// steps, integers, values, images and expected logits, as they are in memory.
#include <cmath>
#include <cstdio>
#include <fstream>
#include <thread>
#include <vector>

#include "program.h"

template <typename Number>
std::vector<Number> read(std::ifstream& file, long count) {
  std::vector<Number> numbers(count);
  file.read(reinterpret_cast<char*>(numbers.data()), count * sizeof(Number));
  return numbers;
}

// The largest difference to the expected logits, with fewer threads than images and with more.
double difference(const char* name) {
  std::ifstream file(name, std::ios::binary);
  const auto sizes = read<int64_t>(file, 8);
  const auto steps = read<wirings::Step>(file, sizes[0]);
  const auto integers = read<int32_t>(file, sizes[1]);
  const auto values = read<float>(file, sizes[2]);
  const auto pixels = read<float>(file, sizes[3] * sizes[4] * sizes[5] * sizes[6]);
  const auto expected = read<float>(file, sizes[3] * sizes[7]);
  if (!file) return INFINITY;
  const wirings::Program program{steps.data(), int(sizes[0]), integers.data(), values.data()};
  const wirings::Images images{pixels.data(), nullptr, int(sizes[4]), int(sizes[5]), int(sizes[6]), nullptr, nullptr};
  double largest = 0;
  for (int threads : {1, 2, 3, 6, 9}) {
    std::vector<float> workspace(wirings::workspace_floats(program, sizes[3], threads));
    std::vector<float> logits(expected.size());
    for (int again = 0; again < 2; ++again) {
      wirings::run(program, images, sizes[3], workspace.data(), threads, logits.data());
      for (size_t place = 0; place < expected.size(); ++place)
        if (const double off = std::abs(double(logits[place]) - expected[place]); !(off <= largest)) largest = off;
    }
  }
  return largest;
}

int main(int count, char** names) {
  std::vector<double> largest(count);
  std::vector<std::thread> callers;  // at the same time, as from several threads of Python
  for (int number = 1; number < count; ++number)
    callers.emplace_back([&, number] { largest[number] = difference(names[number]); });
  for (auto& caller : callers) caller.join();
  for (int number = 1; number < count; ++number) std::printf("%s %g\n", names[number], largest[number]);
}
