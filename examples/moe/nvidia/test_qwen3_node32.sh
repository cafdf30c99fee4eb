#!/bin/bash
# Qwen3-235B in full on 32 nodes of 8 GPUs: DualPipeV, expert communication hidden behind compute. Each variable may
# be set otherwise. From one checkpoint (LOAD_PATH) the losses of the two are equal.
export TP=${TP:-1}
export TPE=${TPE:-1}
export EP=${EP:-16}
export PP=${PP:-16}
export NNODES=${NNODES:-32}
export NUM_LAYERS=${NUM_LAYERS:-94}
export MLP_RECOMPUTE=${MLP_RECOMPUTE:-1}
export TD=${TD:-overlap_deepep}
export SCHED=${SCHED:-dualpipev}
export GROUP_GEMM_TE=${GROUP_GEMM_TE:-1}
export USE_FLASH3=${USE_FLASH3:-1}
exec "$(dirname "${BASH_SOURCE[0]}")/qwen3_235b.sh"
