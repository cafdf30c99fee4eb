#!/bin/bash
# Qwen3-235B cut down to 8 layers and 32 experts on one node of 8 GPUs: DualPipeV, expert communication hidden
# behind compute. Each variable may be set otherwise. SCHED=1f1b TD=allgather_fused is the baseline; from one
# checkpoint (LOAD_PATH) the losses are equal.
export TP=${TP:-1}
export TPE=${TPE:-1}
export EP=${EP:-4}
export PP=${PP:-2}
export NNODES=${NNODES:-1}
export NODE_RANK=${NODE_RANK:-0}
export NUM_LAYERS=${NUM_LAYERS:-8}
export NUM_EXPERTS=${NUM_EXPERTS:-32}
export GLOBAL_BATCH_SIZE=${GLOBAL_BATCH_SIZE:-256}
export TD=${TD:-overlap_deepep}
export SCHED=${SCHED:-dualpipev}
export GROUP_GEMM_TE=${GROUP_GEMM_TE:-1}
export USE_FLASH3=${USE_FLASH3:-1}
exec "$(dirname "${BASH_SOURCE[0]}")/qwen3_235b.sh"
