#!/bin/bash
# test_as_older_cpu.sh default|avx2: runs the tests of arithmetic with the instructions of older processors, in
# libtorch, oneDNN, MKL and, for default (SSE), the C library: sums are then taken in other orders, and the tests'
# bounds must still hold. Of the layouts of ranks, every tenth. After `make build`; .ci/run does both.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  default)
    export ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2
    export GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA
    ;;
  avx2) export ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 ;;
  *) sed -n '2,4s/^# //p' "$0" >&2; exit 2 ;;
esac
export ATEN_CPU_CAPABILITY=$1
folders="kernels|autograd|parallel|nn|optim|moe|generate|train|lean"
# What has no torch in it notices the C library alone.
[ "$1" = avx2 ] || folders="metrics|arch|plan|$folders"
tests=(ctest --preset cpu --no-tests=error -j"$(nproc)")
"${tests[@]}" -R "^(($folders)_test|optim_oracle)\$"
GTEST_FILTER='OneToken.*:PaddedTokens.*:*/*0_*' "${tests[@]}" -R '^layouts_test$'
