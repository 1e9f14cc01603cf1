// Runs networks from files and compares their outputs: for builds with sanitizers, which cannot be loaded into Python.
//
//     check FILE...
//
// Next to each `.wiring` file is one with the ending `.data`: an int64 number of images, the inputs, and the expected
// outputs, float32, as they are in memory. A file that cannot be opened is reported, not an error.
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "wirings.h"

namespace {

std::vector<std::vector<float>> read(std::ifstream& file, const wirings_network* network, int64_t images, bool inputs) {
  std::vector<std::vector<float>> tensors(inputs ? wirings_inputs(network) : wirings_outputs(network));
  for (size_t number = 0; number < tensors.size(); ++number) {
    int64_t shape[3];
    (inputs ? wirings_input_shape : wirings_output_shape)(network, int(number), shape);
    tensors[number].resize(images * shape[0] * shape[1] * shape[2]);
    file.read(reinterpret_cast<char*>(tensors[number].data()), sizeof(float) * tensors[number].size());
  }
  return tensors;
}

// The largest difference to the expected outputs, with fewer threads than images and with more.
std::string difference(const std::string& name) {
  wirings_network* network;
  if (wirings_open_file(name.c_str(), &network)) return wirings_error();
  std::ifstream file(name + ".data", std::ios::binary);
  int64_t images = 0;
  file.read(reinterpret_cast<char*>(&images), sizeof images);
  const auto inputs = read(file, network, images, true), expected = read(file, network, images, false);
  if (!file) return "there is no data";
  auto results = expected;
  std::vector<const float*> from;
  std::vector<float*> to;
  for (const auto& input : inputs) from.push_back(input.data());
  for (auto& result : results) to.push_back(result.data());
  double largest = 0;
  for (int threads : {1, 2, 3, 6, 9})
    for (int again = 0; again < 2; ++again) {
      if (wirings_run(network, from.data(), to.data(), images, threads)) return wirings_error();
      for (size_t number = 0; number < results.size(); ++number)
        for (size_t place = 0; place < results[number].size(); ++place) {
          const double off = std::abs(double(results[number][place]) - expected[number][place]);
          if (!(off <= largest)) largest = off;
        }
    }
  wirings_close(network);
  return std::to_string(largest);
}

}  // namespace

int main(int count, char** names) {
  std::vector<std::string> reports(count);
  std::vector<std::thread> callers;  // at the same time, as from several threads of Python
  for (int number = 1; number < count; ++number)
    callers.emplace_back([&, number] { reports[number] = difference(names[number]); });
  for (auto& caller : callers) caller.join();
  for (int number = 1; number < count; ++number) std::printf("%s: %s\n", names[number], reports[number].c_str());
}
