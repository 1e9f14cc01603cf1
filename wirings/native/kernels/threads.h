// Threads that stay between calls, and a list of tasks that they share.
//
// A network takes less than a millisecond and has a dozen steps, each of which needs the one before: sleeping in
// between would cost more than the work. And a thread that another program keeps from its processor must not hold
// up the others: each thread takes parts that are left.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

namespace wirings {

// Tasks that follow each other, each in a few parts that threads claim.
class Tasks {
 public:
  Tasks(int tasks, int parts);

  // Runs work(part) for each part of the task that no other thread has claimed, `own` first, and returns when
  // all parts are done.
  template <typename Work>
  void run(int task, int own, const Work& work) {
    for (int turn = 0; turn < parts_; ++turn) {
      const int part = (own + turn) % parts_;
      if (claim(task, part)) {
        work(part);
        finish(task);
      }
    }
    wait(task);
  }

  // Whether no thread has claimed this part before.
  bool claim(int task, int part);

 private:
  void finish(int task);
  void wait(int task);

  const int parts_;
  std::vector<std::atomic<int>>& numbers_;  // of each task: parts that are done, and a claim for each part
};

// Runs work(0) in the calling thread and work(1) … work(threads - 1) in others, if they come before it is over.
// Calls from several threads are served one after another. After a fork the child has threads of its own.
void in_parallel(int threads, const std::function<void(int)>& work);

}  // namespace wirings
