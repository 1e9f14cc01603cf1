// A program with its workspaces: what the C interface opens, runs and closes.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "steps.h"

namespace wirings {

class Network {
 public:
  // Throws std::invalid_argument if the program cannot be run.
  explicit Network(Program program, const Target& target = best_target());
  ~Network();
  Network(const Network&) = delete;

  // Runs `images` images of the inputs, (images, channels, height, width) each or bytes, with up to `threads`
  // threads. `seconds`, if not null, receives the time of each step in the first thread, including the wait for the
  // others. Calls from several threads run one after another.
  void run(const Input* inputs, float* const* outputs, int64_t images, int threads, double* seconds = nullptr);

  const Program& program() const { return program_; }

 private:
  struct Groups;
  // Held during a call. A forked process gets a new one: another thread may have held it.
  struct Lock {
    const int process;
    std::mutex busy;
  };
  std::mutex& busy();
  const Prepared& prepared(int images);
  float* workspace(const Prepared& prepared, size_t number);

  const Program program_;
  const Target& target_;
  const int by_image_;
  std::atomic<Lock*> lock_;
  std::map<int, std::unique_ptr<Prepared>> prepared_;
  struct Free {
    void operator()(float* memory) const;
  };
  std::map<int, std::vector<std::unique_ptr<float, Free>>> workspaces_;
  std::vector<std::vector<float>> scratch_;  // of each thread
};

}  // namespace wirings
