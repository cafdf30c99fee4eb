#!/bin/bash
# DeepSeek-R1-Distill-Qwen-7B from Megatron's files, on the CPU.
#   CKPT_PATH_HF  the folder that is made; required
#   CKPT_PATH_MG  Megatron's checkpoint; required
#   MOETRON       another program than this checkout's
model='DeepSeek-R1-Distill-Qwen-7B'
source "$(dirname "${BASH_SOURCE[0]}")/../src/mg_to_hf.sh"
