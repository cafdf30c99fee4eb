#!/bin/bash
# Qwen3-235B in full on 32 nodes of 8 GPUs: 1f1b, the baseline of the script without this ending. Each variable may
# be set otherwise. From one checkpoint (LOAD_PATH) the losses of the two are equal.
source "$(dirname "${BASH_SOURCE[0]}")/cut_down.sh"
cut_down qwen3_235b.sh 1f1b TP=2 EP=16 PP=8 NNODES=32 NUM_LAYERS=94 MLP_RECOMPUTE=1
