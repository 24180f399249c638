#!/usr/bin/env bash
# Quantizes the bundled model in six ways, measures each, and prints and plots what was gained and lost.
#
#   bash examples/quickstart.sh [OUTPUT_FOLDER]        (default: quickstart-output)
#
# Sets everything up on a bare Debian or Ubuntu machine with Python 3.11 or newer. A second run uses its stage files again.
set -euo pipefail
cd "$(dirname "$0")/.."
source examples/environment.sh

system_packages python3 python3-venv python3-dev g++
python_environment eval
exec .venv/bin/python examples/quickstart.py "${1:-quickstart-output}"
