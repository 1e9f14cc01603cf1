// Threads that stay between calls, and a barrier that spins.
//
// A network takes a millisecond and has a dozen barriers: sleeping at each of them would cost more than the work.
#pragma once

#include <atomic>
#include <functional>

namespace wirings {

// Where `size` threads wait for each other.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  void wait();

 private:
  const int size_;
  std::atomic<int> waiting_{0};
  std::atomic<unsigned> round_{0};
};

// Runs work(0) … work(threads - 1) at the same time, work(0) in the calling thread. Calls from several threads are
// served one after another. After a fork the child has threads of its own.
void in_parallel(int threads, const std::function<void(int)>& work);

}  // namespace wirings
