#!/bin/bash
# DeepSeek-R1-Distill-Qwen-7B from Megatron's files, on the CPU.
#   CKPT_PATH_HF  the folder that is made; required
#   CKPT_PATH_MG  Megatron's checkpoint; required
#   MOETRON       another program than this checkout's
set -euo pipefail
src=$(cd "$(dirname "${BASH_SOURCE[0]}")/../src" && pwd)
source "$src/../../../scripts/find_moetron.sh"
need_variables "CKPT_PATH_HF=DeepSeek-R1-Distill-Qwen-7B CKPT_PATH_MG=DeepSeek-R1-Distill-Qwen-7B_mg" \
  CKPT_PATH_HF CKPT_PATH_MG
middle=$CKPT_PATH_MG.middle_file
trap 'rm -rf "$middle"' EXIT

python3 "$src/convert_mg_to_middle_file.py" --load-path "$CKPT_PATH_MG" --save-path "$middle" \
  --model 'DeepSeek-R1-Distill-Qwen-7B' \
  --use-gpu-num 0 --process-num 16
python3 "$src/convert_middle_file_to_hf.py" --load-path "$middle" --save-path "$CKPT_PATH_HF" \
  --model 'DeepSeek-R1-Distill-Qwen-7B' \
  --use-gpu-num 0 --process-num 16
