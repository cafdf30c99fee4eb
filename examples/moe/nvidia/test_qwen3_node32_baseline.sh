#!/bin/bash
# Qwen3-235B in full on 32 nodes of 8 GPUs: 1f1b, the baseline of the script without this ending. Each variable may
# be set otherwise. From one checkpoint (LOAD_PATH) the losses of the two are equal.
export TP=${TP:-1}
export TPE=${TPE:-1}
export EP=${EP:-16}
export PP=${PP:-16}
export NNODES=${NNODES:-32}
export NUM_LAYERS=${NUM_LAYERS:-94}
export MLP_RECOMPUTE=${MLP_RECOMPUTE:-1}
export TD=${TD:-allgather_fused}
export SCHED=${SCHED:-1f1b}
export GROUP_GEMM_TE=${GROUP_GEMM_TE:-1}
export USE_FLASH3=${USE_FLASH3:-1}
exec "$(dirname "${BASH_SOURCE[0]}")/qwen3_235b.sh"
