#!/usr/bin/env bash
# Runs every test: C++ (ctest), then Python (pytest).
#
#   bash tests/run.sh                    everything
#   bash tests/run.sh --sanitize         the C++ tests once more under address and undefined-behaviour sanitizers, on
#                                        fewer random inputs (slower)
#   bash tests/run.sh --exhaustive       the kernel tests with all 2^32 float32 inputs for every format (hours)
#   bash tests/run.sh --fuzz [SECONDS]   the fuzz target under the same sanitizers, 600 seconds if not said, and nothing
#                                        else; needs clang++. It ends at the first failure and leaves the input in
#                                        build/fuzz, for build/fuzz/tests/cpp/fuzz/fuzz_codec FILE.
#
# The C++ tests read how much random input to draw: PRISMAQUANT_TEST_FLOATS (float32 per format, 10^8 by default, "all")
# PRISMAQUANT_TEST_BLOCKS (NVFP4 blocks of which every scale is tried, 10^7) and PRISMAQUANT_TEST_PROBLEMS (chains of
# solvers per format, 1000). tests/aarch64.sh runs them under qemu. The Python tests read PRISMAQUANT_TEST_HEADERS (mutated
# safetensors headers, 20,000) and PRISMAQUANT_TEST_GIGABYTES (of a sparse checkpoint that is exported, 0.5).
#
# Sets everything up on a bare Debian or Ubuntu machine with Python 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."
source examples/environment.sh

system_packages python3 python3-venv python3-dev g++ catch2 nlohmann-json3-dev libxtensor-dev libeigen3-dev
[ "${1:-}" = --fuzz ] || python_environment test
export PATH="$PWD/.venv/bin:$PATH"

cpp_tests() { # FOLDER CMAKE_ARGUMENT...
  local folder="$1"
  shift
  cmake -S . -B "$folder" -G Ninja "$@" >"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
  cmake --build "$folder" || exit 1
  ctest --test-dir "$folder" --output-on-failure --no-tests=error --parallel "$(nproc)"
}

sanitizers=(-DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_FLAGS=-fsanitize=address,undefined -fno-sanitize-recover=all -O1")
mkdir -p build

if [ "${1:-}" = --fuzz ]; then
  system_packages clang
  say "Fuzzing the codec for ${2:-600} seconds"
  cmake -S . -B build/fuzz -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DPRISMAQUANT_BUILD_TESTS=OFF \
    -DPRISMAQUANT_BUILD_EXAMPLES=OFF -DPRISMAQUANT_BUILD_FUZZERS=ON "${sanitizers[@]}" >build/fuzz.log 2>&1 ||
    { cat build/fuzz.log; exit 1; }
  cmake --build build/fuzz
  mkdir -p build/fuzz/corpus
  exec build/fuzz/tests/cpp/fuzz/fuzz_codec -max_total_time="${2:-600}" -max_len=16384 -print_final_stats=1 \
    -artifact_prefix=build/fuzz/ build/fuzz/corpus
fi

say "C++ tests"
# In the folder of the Python module, so that the kernels are compiled once.
cpp_tests build/python -DPRISMAQUANT_BUILD_TESTS=ON -DPRISMAQUANT_BUILD_EXAMPLES=ON
case "${1:-}" in
  --sanitize)
    say "C++ tests under sanitizers"
    export PRISMAQUANT_TEST_FLOATS=1000000 PRISMAQUANT_TEST_BLOCKS=200000 PRISMAQUANT_TEST_PROBLEMS=50
    cpp_tests build/sanitize "${sanitizers[@]}"
    ;;
  --exhaustive)
    say "All 2^32 float32 inputs"
    PRISMAQUANT_TEST_FLOATS=all build/python/tests/test_kernels --durations yes "all 2^32*"
    ;;
esac

say "Python tests"
python -m pytest --numprocesses "$(nproc)" --dist loadfile
