#!/bin/bash
# DeepSeek-V3 cut down to 15 layers on 16 nodes of 8 GPUs: 1f1b, the baseline of the script without this ending.
# Each variable may be set otherwise. From one checkpoint (LOAD_PATH) the losses of the two are equal.
export TP=${TP:-1}
export TPE=${TPE:-1}
export EP=${EP:-16}
export PP=${PP:-4}
export NNODES=${NNODES:-16}
export NUM_LAYERS=${NUM_LAYERS:-15}
export TD=${TD:-allgather_fused}
export SCHED=${SCHED:-1f1b}
export GROUP_GEMM_TE=${GROUP_GEMM_TE:-1}
export USE_FLASH3=${USE_FLASH3:-1}
export HPP="${HPP:-4 4 4 3}"
exec "$(dirname "${BASH_SOURCE[0]}")/deepseekv3_671b.sh"
