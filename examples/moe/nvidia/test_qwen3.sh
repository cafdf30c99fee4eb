#!/bin/bash
# Qwen3-235B cut down to 8 layers and 32 experts on one node of 8 GPUs: DualPipeV, expert communication hidden
# behind compute. Each variable may be set otherwise. SCHED=1f1b TD=allgather_fused is the baseline; from one
# checkpoint (LOAD_PATH) the losses are equal.
source "$(dirname "${BASH_SOURCE[0]}")/cut_down.sh"
cut_down qwen3_235b.sh dualpipev EP=4 PP=2 NNODES=1 NODE_RANK=0 NUM_LAYERS=8 NUM_EXPERTS=32 GLOBAL_BATCH_SIZE=256
