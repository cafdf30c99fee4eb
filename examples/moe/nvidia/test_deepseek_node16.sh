#!/bin/bash
# DeepSeek-V3 cut down to 15 layers on 16 nodes of 8 GPUs: DualPipeV, expert communication hidden behind compute.
# Each variable may be set otherwise. From one checkpoint (LOAD_PATH) the losses of the two are equal.
source "$(dirname "${BASH_SOURCE[0]}")/cut_down.sh"
cut_down deepseekv3_671b.sh dualpipev EP=16 PP=4 NNODES=16 NUM_LAYERS=15 HPP="2 2 2 2 1 2 2 2"
