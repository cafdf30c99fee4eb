#!/bin/bash
# build_program.sh JOBS: builds the program alone, without the tests: for GPUs where the machine has one and what a
# CUDA build needs, else for CPUs.
set -euo pipefail
cd "$(dirname "$0")/.."
if nvidia-smi -L 2>/dev/null | grep '^GPU' >/dev/null && scripts/build_cuda.sh "$1" --target moetron; then
  exit
fi
exec scripts/build.sh cpu "$1" --target moetron
