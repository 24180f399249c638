#!/usr/bin/env bash
# Asks the code of stock vLLM, on a CPU, which scheme it chooses for every layer of folders that this package writes, and
# has it load them: whether every parameter then holds what is stored, and the model loses what it loses in transformers.
#
#   bash tests/engines.sh                  prints the tables of tests/engines/results.md; exit code 1 if something is wrong
#   bash tests/engines.sh 0.33.0           of one of the releases below
#
# No part of tests/run.sh: it installs each vLLM and what it imports (about 3 GB) into .venv-vllm-RELEASE, and takes a
# quarter of an hour for each. No kernel runs.
set -euo pipefail
cd "$(dirname "$0")/.."
source examples/environment.sh

#: Release of vLLM -> what of its time it goes with.
declare -A engines=(
  [0.33.0]="compressed-tensors==0.17.0 transformers<5.21"
  [0.22.1]="compressed-tensors==0.15.0.1 transformers==5.8.0"
)
system_packages python3 python3-venv python3-dev g++
python_environment test

failed=0
for vllm in ${1:-0.33.0 0.22.1}; do
  venv=.venv-vllm-$vllm
  read -r -a companions <<<"${engines[$vllm]:?is no release that is known here}"
  if [ "$(cat "$venv/stamp" 2>/dev/null)" != "${companions[*]}" ]; then
    say "Installing vLLM $vllm into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
    "${pip[@]}" "$torch_requirement"
    # Without its dependencies, which would bring another torch and its CUDA libraries; then what its modules import.
    "${pip[@]}" --no-deps "vllm==$vllm" "${companions[0]}" xgrammar==0.2.8 torchvision==0.28.0
    "$venv/bin/python" -m pip freeze | grep -i '^torch==' | sed 's/+cpu//' >"$venv/constraints.txt"
    "${pip[@]}" -c "$venv/constraints.txt" -r tests/engines/requirements.txt "${companions[@]:1}"
    echo "${companions[*]}" >"$venv/stamp"
  fi
  PYTHONPATH=tests/python .venv/bin/python tests/engines/judge.py "$venv/bin/python" "vLLM $vllm" || failed=1
  echo
done
exit $failed
