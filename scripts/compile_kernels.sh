#!/bin/bash
# compile_kernels.sh: compiles every CUDA kernel for sm_90a, and what C++ units say in a build with CUDA alone, which
# needs nvcc and no GPU, no torch with CUDA. CUTLASS's headers come from pip. Without nvcc it says so and is content.
set -euo pipefail
cd "$(dirname "$0")/.."

nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)
if [ -z "$nvcc" ]; then
  echo "kernels: no nvcc here: nothing was compiled"
  exit 0
fi
headers=build/kernel-headers
cutlass=$headers/cutlass_library/source/include
[ -d "$cutlass" ] || .venv/bin/pip install -q --no-deps --target "$headers" nvidia-cutlass

# The kernels stand beside units in C++ that need cuBLASLt or cuDNN: those are left to a CUDA build. With assertions
# CUTLASS's products would be slow, and ptxas says so.
ls moetron/kernels/cuda/*.cu | xargs -P 2 -I{} "$nvcc" -std=c++20 -gencode=arch=compute_90a,code=sm_90a \
  --expt-relaxed-constexpr -O3 -DNDEBUG -I. -isystem "$cutlass" -c {} -o /dev/null
echo "kernels: $(ls moetron/kernels/cuda/*.cu | wc -l) units compile for sm_90a"

# A CPU's torch has the headers of c10/cuda but one, which says how libraries were built.
mkdir -p "$headers/c10/cuda/impl"
: >"$headers/c10/cuda/impl/cuda_cmake_macros.h"
torch=$(ls -d .venv/lib/python3*/site-packages/torch)
# All that nvcc lists is read before one line of it is taken: a reader that leaves first would be nvcc's failure.
includes=$("$nvcc" -x cu -M - </dev/null)
cuda=$(grep -om 1 '/[^ ]*/cuda_runtime.h' <<<"$includes")
flags=(-std=c++20 -fopenmp -DMOETRON_CUDA -DMOETRON_CUDA_ARCHITECTURES='"90a"' -DUSE_DISTRIBUTED -DUSE_C10D_GLOO
  -Wall -Wextra -Wshadow -Wno-missing-field-initializers -Werror -I. -Itests -isystem "$torch/include"
  -isystem "$torch/include/torch/csrc/api/include" -isystem "$headers" -isystem "$(dirname "$cuda")")
echo '#include "cmake/torch_pch.h"' >"$headers/torch.h"
g++ "${flags[@]}" -x c++-header "$headers/torch.h" -o "$headers/torch.h.gch"
mapfile -t units < <(grep -rl --include=*.cpp MOETRON_CUDA moetron tests | grep -v kernels/attention.cpp)
printf '%s\0' "${units[@]}" | xargs -0 -P 2 -I{} g++ "${flags[@]}" -include "$headers/torch.h" -fsyntax-only {}
echo "kernels: ${#units[@]} units of C++ compile as in a build with CUDA"
