#!/usr/bin/env bash
# Runs every test: C++ (ctest), then Python (pytest).
#
#   bash tests/run.sh                 everything
#   bash tests/run.sh --sanitize      the C++ tests once more under address and undefined-behaviour sanitizers (slower)
#
# Sets everything up on a bare Debian or Ubuntu machine with Python 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."
source examples/environment.sh

system_packages python3 python3-venv python3-dev g++ catch2 nlohmann-json3-dev libxtensor-dev
python_environment test
export PATH="$PWD/.venv/bin:$PATH"

cpp_tests() { # FOLDER CMAKE_ARGUMENT...
  local folder="$1"
  shift
  cmake -S . -B "$folder" -G Ninja "$@" >"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
  cmake --build "$folder" || exit 1
  ctest --test-dir "$folder" --output-on-failure
}

mkdir -p build
say "C++ tests"
cpp_tests build/tests
if [ "${1:-}" = --sanitize ]; then
  say "C++ tests under sanitizers"
  cpp_tests build/sanitize -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -O1"
fi

say "Python tests"
python -m pytest
