#!/bin/bash
# DeepSeek-V3 in full on 32 nodes of 8 GPUs: DualPipeV, expert communication hidden behind compute. Each variable
# may be set otherwise. From one checkpoint (LOAD_PATH) the losses of the two are equal.
source "$(dirname "${BASH_SOURCE[0]}")/cut_down.sh"
cut_down deepseekv3_671b.sh dualpipev TP=2 EP=16 PP=16 NNODES=32 NUM_LAYERS=61 MLP_RECOMPUTE=1 CPU_ADAM=1
