#!/usr/bin/env bash
# Asks the code of stock vLLM, on a CPU, which scheme it chooses for every layer of folders that this package writes.
#
#   bash tests/engines.sh            prints the table of tests/engines/results.md; exit code 1 if a choice is another
#
# No part of tests/run.sh: it installs vLLM and what it imports (about 3 GB) into .venv-vllm. No kernel runs.
set -euo pipefail
cd "$(dirname "$0")/.."
source examples/environment.sh

vllm=0.33.0
system_packages python3 python3-venv python3-dev g++
python_environment test

if [ "$(cat .venv-vllm/stamp 2>/dev/null)" != "$vllm" ]; then
  say "Installing vLLM $vllm into .venv-vllm"
  rm -rf .venv-vllm
  python3 -m venv .venv-vllm
  pip=(.venv-vllm/bin/python -m pip --disable-pip-version-check install --quiet)
  "${pip[@]}" "$torch_requirement"
  # Without its dependencies, which would bring another torch and its CUDA libraries; then what its modules import.
  "${pip[@]}" --no-deps "vllm==$vllm" compressed-tensors==0.17.0 xgrammar==0.2.8
  .venv-vllm/bin/python -m pip freeze | grep -i '^torch==' | sed 's/+cpu//' >.venv-vllm/constraints.txt
  "${pip[@]}" -c .venv-vllm/constraints.txt -r tests/engines/requirements.txt
  echo "$vllm" >.venv-vllm/stamp
fi
PYTHONPATH=tests/python exec .venv/bin/python tests/engines/judge.py .venv-vllm/bin/python "vLLM $vllm"
