#!/bin/bash
# DeepSeek-V3 cut down to 15 layers on 16 nodes of 8 GPUs: DualPipeV, expert communication hidden behind compute.
# Each variable may be set otherwise. From one checkpoint (LOAD_PATH) the losses of the two are equal.
export TP=${TP:-1}
export TPE=${TPE:-1}
export EP=${EP:-16}
export PP=${PP:-4}
export NNODES=${NNODES:-16}
export NUM_LAYERS=${NUM_LAYERS:-15}
export TD=${TD:-overlap_deepep}
export SCHED=${SCHED:-dualpipev}
export GROUP_GEMM_TE=${GROUP_GEMM_TE:-1}
export USE_FLASH3=${USE_FLASH3:-1}
export HPP="${HPP:-2 2 2 2 1 2 2 2}"
exec "$(dirname "${BASH_SOURCE[0]}")/deepseekv3_671b.sh"
