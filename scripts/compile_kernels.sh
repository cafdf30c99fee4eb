#!/bin/bash
# compile_kernels.sh: compiles every CUDA kernel for sm_90a, which needs nvcc and no GPU, no torch. CUTLASS's headers
# come from pip. Without nvcc it says so and is content.
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
