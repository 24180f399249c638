// A small benchmark harness: every contender once per round, round after round, so that a busy neighbour or a change of
// clock meets all of them alike. Reports the median of the rounds, and ratios of medians.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace interleaved {

// Processor time of the calling thread: what others do on the machine meanwhile costs nothing here but cache and
// memory.
inline double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Runs body(part) in `threads` threads that start together; the time of the slowest.
template <class Body>
double seconds(int threads, Body const& body) {
  std::vector<double> times(static_cast<std::size_t>(threads));
  std::atomic<int> ready{0};
  auto const run = [&](int part) {
    ready.fetch_add(1);
    while (ready.load() < threads) {
    }
    double const start = thread_seconds();
    body(part);
    times[static_cast<std::size_t>(part)] = thread_seconds() - start;
  };
  {
    std::vector<std::jthread> workers;
    for (int part = 1; part < threads; ++part) workers.emplace_back(run, part);
    run(0);
  }
  return *std::max_element(times.begin(), times.end());
}

struct contender {
  std::string name;
  std::function<void(int part)> body;
  std::vector<double> times = {};

  double median() const {
    auto sorted = times;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

// Contenders that move or make the same `elements` per round. `limit` of them, the first ones, are limit kernels: the
// fastest of those is what the others are compared with.
struct group {
  std::string name;
  double elements;
  int threads;
  std::size_t limits;
  std::vector<contender> contenders;

  void run(int rounds) {
    for (auto& c : contenders) seconds(threads, c.body);  // warm
    for (int round = 0; round < rounds; ++round) {
      for (auto& c : contenders) c.times.push_back(seconds(threads, c.body));
    }
  }

  double limit_seconds() const {
    double best = contenders.front().median();
    for (std::size_t i = 1; i < limits; ++i) best = std::min(best, contenders[i].median());
    return best;
  }
};

}  // namespace interleaved
