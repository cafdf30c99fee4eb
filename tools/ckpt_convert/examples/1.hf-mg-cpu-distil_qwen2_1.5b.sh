#!/bin/bash
# DeepSeek-R1-Distill-Qwen-1.5B for Megatron, on the CPU.
#   CKPT_PATH_HF  the model's Hugging Face directory; required
#   CKPT_PATH_MG  the folder that is made; required
#   TP_SIZE, PP_SIZE  the layout of Megatron's ranks (1, 1); MOETRON names another program than this checkout's
model='DeepSeek-R1-Distill-Qwen-1.5B'
source "$(dirname "${BASH_SOURCE[0]}")/../src/hf_to_mg.sh"
