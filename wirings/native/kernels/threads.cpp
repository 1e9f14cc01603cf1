#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace wirings {
namespace {

constexpr int kSpins = 2000;  // some tens of microseconds

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
    if (spins < kSpins)
      relax();
    else
      std::this_thread::yield();
  }
}

// A worker waits for its next call: it spins for a moment, since calls often follow each other, then sleeps.
class Worker {
 public:
  Worker() {
    std::thread thread([this] { serve(); });
    thread_ = thread.native_handle();
    thread.detach();
  }

  std::thread::native_handle_type thread() const { return thread_; }

  void offer(const std::function<void(int)>& work, int number) {
    work_ = &work;
    number_ = number;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      state_.store(kOffered, std::memory_order_release);
    }
    wake_.notify_one();
  }
  // Cancels the call if it has not started, else waits for its end.
  void join() {
    int offered = kOffered;
    if (state_.compare_exchange_strong(offered, kIdle, std::memory_order_acq_rel)) return;
    spin_until([this] { return state_.load(std::memory_order_acquire) == kIdle; });
  }

 private:
  enum State { kIdle, kOffered, kRunning };

  void serve() {
    const auto offered = [this] { return state_.load(std::memory_order_acquire) == kOffered; };
    while (true) {
      for (int spins = 0; spins < kSpins && !offered(); ++spins) relax();
      if (!offered()) {
        std::unique_lock<std::mutex> lock(mutex_);
        if (!offered()) wake_.wait(lock);
        // It spins again after waking up: a call that it missed is often followed by the next.
      }
      int state = kOffered;
      if (!state_.compare_exchange_strong(state, kRunning, std::memory_order_acq_rel)) continue;
      (*work_)(number_);
      state_.store(kIdle, std::memory_order_release);
    }
  }

  const std::function<void(int)>* work_ = nullptr;
  int number_ = 0;
  std::atomic<int> state_{kIdle};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::thread::native_handle_type thread_;
};

struct Team {
  const pid_t process = getpid();
  std::mutex busy;
  std::vector<std::unique_ptr<Worker>> workers;
  int avoided = -1;  // the processor that the workers do not use
};

// Never destroyed: at the end of the process its threads may still sleep.
Team& current_team() {
  static std::atomic<Team*> current{new Team};
  Team* team = current.load();
  if (team->process != getpid()) {
    Team* forked = new Team;
    if (current.compare_exchange_strong(team, forked)) return *forked;
    delete forked;
    return *current.load();
  }
  return *team;
}

// Systems that save power wake a thread on the processor of the waking thread, too late for calls as short as
// these. So the workers do not use the caller's processor if there are others.
void avoid_processor_of_caller(Team& team) {
#if defined(__linux__)
  const int here = sched_getcpu();
  if (here < 0 || here == team.avoided) return;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) || CPU_COUNT(&allowed) < 2) return;
  CPU_CLR(here, &allowed);
  for (const auto& worker : team.workers) pthread_setaffinity_np(worker->thread(), sizeof(allowed), &allowed);
  team.avoided = here;
#endif
}

// Reused by all calls, so that they allocate nothing.
std::vector<std::atomic<int>>& numbers() {
  static thread_local std::vector<std::atomic<int>> numbers;
  return numbers;
}

}  // namespace

Tasks::Tasks(int tasks, int parts) : parts_(parts), numbers_(numbers()) {
  const size_t needed = size_t(tasks) * (parts + 1);
  if (numbers_.size() < needed) numbers_ = std::vector<std::atomic<int>>(needed);
  for (auto& number : numbers_) number.store(0, std::memory_order_relaxed);
}

bool Tasks::claim(int task, int part) {
  auto& claimed = numbers_[size_t(task) * (parts_ + 1) + 1 + part];
  return !claimed.load(std::memory_order_relaxed) && !claimed.exchange(1, std::memory_order_relaxed);
}

void Tasks::finish(int task) { numbers_[size_t(task) * (parts_ + 1)].fetch_add(1, std::memory_order_acq_rel); }

void Tasks::wait(int task) {
  const auto& done = numbers_[size_t(task) * (parts_ + 1)];
  spin_until([&] { return done.load(std::memory_order_acquire) == parts_; });
}

void in_parallel(int threads, const std::function<void(int)>& work) {
  if (threads <= 1) {
    work(0);
    return;
  }
  Team& team = current_team();
  std::lock_guard<std::mutex> lock(team.busy);
  auto& workers = team.workers;
  for (; int(workers.size()) < threads - 1; team.avoided = -1) workers.push_back(std::make_unique<Worker>());
  avoid_processor_of_caller(team);
  for (int number = 1; number < threads; ++number) workers[number - 1]->offer(work, number);
  work(0);
  for (int number = 1; number < threads; ++number) workers[number - 1]->join();
}

}  // namespace wirings
