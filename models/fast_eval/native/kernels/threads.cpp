#include "threads.h"

#include <unistd.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace wirings {
namespace {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins for some microseconds, then lets other threads run, until `ready` is true.
template <typename Ready>
void spin_until(const Ready& ready) {
  for (int spins = 0; !ready(); ++spins) {
    if (spins < 4096)
      relax();
    else
      std::this_thread::yield();
  }
}

// A worker waits for its next call: spinning for a moment, since calls often follow each other, then asleep.
class Worker {
 public:
  Worker() : thread_([this] { serve(); }) { thread_.detach(); }

  void start(const std::function<void(int)>& work, int number) {
    work_ = &work;
    number_ = number;
    done_.store(false, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      calls_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_one();
  }
  void join() {
    spin_until([this] { return done_.load(std::memory_order_acquire); });
  }

 private:
  void serve() {
    for (unsigned served = 0;; ++served) {
      const auto called = [&] { return calls_.load(std::memory_order_acquire) != served; };
      for (int spins = 0; spins < 20000 && !called(); ++spins) relax();
      if (!called()) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, called);
      }
      (*work_)(number_);
      done_.store(true, std::memory_order_release);
    }
  }

  const std::function<void(int)>* work_ = nullptr;
  int number_ = 0;
  std::atomic<unsigned> calls_{0};
  std::atomic<bool> done_{true};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::thread thread_;  // last: it uses all of the above
};

struct Team {
  const pid_t process = getpid();
  std::mutex busy;
  std::vector<std::unique_ptr<Worker>> workers;
};

// Never destroyed: at the end of the process its threads may still be asleep in it.
Team& team() {
  static std::atomic<Team*> current{new Team};
  Team* found = current.load();
  if (found->process != getpid()) {
    Team* fresh = new Team;
    if (current.compare_exchange_strong(found, fresh)) return *fresh;
    delete fresh;
    return *current.load();
  }
  return *found;
}

}  // namespace

void Barrier::wait() {
  const unsigned round = round_.load(std::memory_order_acquire);
  if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    waiting_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  spin_until([&] { return round_.load(std::memory_order_acquire) != round; });
}

void in_parallel(int threads, const std::function<void(int)>& work) {
  if (threads <= 1) {
    work(0);
    return;
  }
  Team& all = team();
  std::lock_guard<std::mutex> lock(all.busy);
  while (int(all.workers.size()) < threads - 1) all.workers.push_back(std::make_unique<Worker>());
  for (int number = 1; number < threads; ++number) all.workers[number - 1]->start(work, number);
  work(0);
  for (int number = 1; number < threads; ++number) all.workers[number - 1]->join();
}

}  // namespace wirings
