#!/bin/bash
# DeepSeek-R1-Distill-Qwen-1.5B for Megatron, on the CPU.
#   CKPT_PATH_HF  the model's Hugging Face directory; required
#   CKPT_PATH_MG  the folder that is made; required
#   TP_SIZE, PP_SIZE  the layout of Megatron's ranks (1, 1); MOETRON names another program than this checkout's
set -euo pipefail
src=$(cd "$(dirname "${BASH_SOURCE[0]}")/../src" && pwd)
source "$src/../../../scripts/find_moetron.sh"
need_variables "CKPT_PATH_HF=DeepSeek-R1-Distill-Qwen-1.5B CKPT_PATH_MG=DeepSeek-R1-Distill-Qwen-1.5B_mg" \
  CKPT_PATH_HF CKPT_PATH_MG
middle=$CKPT_PATH_MG.middle_file
trap 'rm -rf "$middle"' EXIT

python3 "$src/convert_hf_to_middle_file.py" --load-path "$CKPT_PATH_HF" --save-path "$middle" \
  --model 'DeepSeek-R1-Distill-Qwen-1.5B' \
  --use-gpu-num 0 --process-num 16
python3 "$src/convert_middle_file_to_mg.py" --load-path "$middle" --save-path "$CKPT_PATH_MG" \
  --model 'DeepSeek-R1-Distill-Qwen-1.5B' \
  --tp-size "${TP_SIZE:-1}" --tpe-size 1 --ep-size 1 --pp-size "${PP_SIZE:-1}" --use-gpu-num 0 --process-num 16
