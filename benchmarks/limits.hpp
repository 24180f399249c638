// Limit kernels: what a core of this machine can do that moves the same bytes and computes nothing.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace limits {

// A kernel that reads `read` cache lines for every `write` lines that it writes, and, with `scales`, another line for
// every eight written (a group scale per eight bytes of codes).
using kernel = void (*)(char const* from, char* to, char* scales, std::size_t steps);
struct variant {
  std::string name;
  kernel run;
};

// Read 8 lines : write 1, 4 : 1, 2 : 1 (encoding); 1 : 8, 1 : 4, 1 : 2 (decoding): every unrolling, prefetch distance
// and kind of store. Other ratios: empty.
std::vector<variant> variants(int read, int write);

}  // namespace limits
