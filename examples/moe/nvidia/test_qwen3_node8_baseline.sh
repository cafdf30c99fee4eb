#!/bin/bash
# Qwen3-235B cut down to 30 layers on 8 nodes of 8 GPUs: 1f1b, the baseline of the script without this ending. Each
# variable may be set otherwise. From one checkpoint (LOAD_PATH) the losses of the two are equal.
source "$(dirname "${BASH_SOURCE[0]}")/cut_down.sh"
cut_down qwen3_235b.sh 1f1b EP=16 PP=4 NNODES=8 NUM_LAYERS=30 HPP="7 8 8 7"
