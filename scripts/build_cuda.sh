#!/bin/bash
# build_cuda.sh JOBS [--target TARGET]: builds the preset cuda. It needs a CUDA toolkit (nvcc) and a torch wheel with CUDA, which
# is looked for in MOETRON_TORCH_DIR (the torch package folder) and then in .venv-cuda.
set -euo pipefail
cd "$(dirname "$0")/.."

nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)
if [ -z "$nvcc" ]; then
  echo "cuda: no nvcc in PATH or /usr/local/cuda/bin: install a CUDA toolkit (12.8 or newer)" >&2
  exit 2
fi
torch=${MOETRON_TORCH_DIR:-$(ls -d .venv-cuda/lib/python3*/site-packages/torch 2>/dev/null | head -n 1 || true)}
if [ -z "$torch" ]; then
  cat >&2 <<'WORDS'
cuda: no torch wheel with CUDA. Either set MOETRON_TORCH_DIR to the folder of a torch package built with CUDA, or:
        python3 -m venv .venv-cuda && .venv-cuda/bin/pip install torch==2.11.0 nvidia-cutlass numpy
        .venv-cuda/bin/pip install --no-deps nvidia-cudnn-frontend
WORDS
  exit 2
fi
if [ ! -e "$torch/lib/libtorch_cuda.so" ]; then
  echo "cuda: $torch is a torch without CUDA: it has no lib/libtorch_cuda.so" >&2
  exit 2
fi
exec scripts/build.sh cuda "$@" -DCMAKE_CUDA_COMPILER="$nvcc" -DMOETRON_TORCH_DIR="$(realpath "$torch")"
