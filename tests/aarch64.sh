#!/usr/bin/env bash
# Builds the C++ tests of codecs and solvers for 64-bit ARM with a cross compiler and runs them under qemu-user: the NEON kernels
# against the scalar codec, on fewer random inputs than natively, because emulation is slow.
#
#   bash tests/aarch64.sh [TEST...]      by default core, formats, codec, solver, chain, kernels, every_scale
#
# Sets everything up on a bare Debian or Ubuntu machine. Needs no Python.
set -euo pipefail
cd "$(dirname "$0")/.."
source examples/environment.sh

system_packages g++ catch2 libeigen3-dev g++-aarch64-linux-gnu qemu-user
export PRISMAQUANT_TEST_FLOATS="${PRISMAQUANT_TEST_FLOATS:-1000000}" PRISMAQUANT_TEST_BLOCKS="${PRISMAQUANT_TEST_BLOCKS:-300000}"
export PRISMAQUANT_TEST_PROBLEMS="${PRISMAQUANT_TEST_PROBLEMS:-20}"
[ $# -ne 0 ] || set -- core formats codec solver chain kernels every_scale

build=build/aarch64
mkdir -p "$build"
cmake -S . -B "$build" -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_CROSSCOMPILING_EMULATOR="qemu-aarch64;-L;/usr/aarch64-linux-gnu" \
  -DPRISMAQUANT_BUILD_EXAMPLES=OFF >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
cmake --build "$build" --target "${@/#/test_}"
for test in "$@"; do
  say "$test"
  qemu-aarch64 -L /usr/aarch64-linux-gnu "$build/tests/test_$test"
done
