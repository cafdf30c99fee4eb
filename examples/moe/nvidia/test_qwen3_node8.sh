#!/bin/bash
# Qwen3-235B cut down to 30 layers on 8 nodes of 8 GPUs: DualPipeV, expert communication hidden behind compute. Each
# variable may be set otherwise. From one checkpoint (LOAD_PATH) the losses of the two are equal.
source "$(dirname "${BASH_SOURCE[0]}")/cut_down.sh"
cut_down qwen3_235b.sh dualpipev EP=16 PP=4 NNODES=8 NUM_LAYERS=30 HPP="3 4 4 4 3 4 4 4"
