// A thread pool, and a list of tasks that its threads share.
//
// A network takes less than a millisecond and has a dozen steps, each of which needs the one before: sleeping in
// between would take longer than the work. A thread that loses its processor to another program must not delay the
// others: each thread takes the remaining parts.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

namespace wirings {

// A sequence of tasks, each with a few parts that threads claim.
class Tasks {
 public:
  Tasks(int tasks, int parts);

  // Runs work(part) for each unclaimed part of the task, `first` first, and returns when all parts are done.
  template <typename Work>
  void run(int task, int first, const Work& work) {
    for (int turn = 0; turn < parts_; ++turn) {
      const int part = (first + turn) % parts_;
      if (claim(task, part)) {
        work(part);
        finish(task);
      }
    }
    wait(task);
  }

  // Claims a part. Returns whether no thread has claimed it before.
  bool claim(int task, int part);

 private:
  void finish(int task);
  void wait(int task);

  const int parts_;
  std::vector<std::atomic<int>>& numbers_;  // per task: number of finished parts, and a flag for each claimed part
};

// Runs work(0) in the calling thread, and work(1) … work(threads - 1) in workers that start before it has ended.
// Calls from several threads run one after another. A forked child has its own threads.
void in_parallel(int threads, const std::function<void(int)>& work);

}  // namespace wirings
