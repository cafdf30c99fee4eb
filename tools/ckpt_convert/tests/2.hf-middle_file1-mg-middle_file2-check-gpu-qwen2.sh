#!/bin/bash
# A model (Qwen2, say) to Megatron's files and back: both middle files are the same. It needs no GPU.
#   CKPT_PATH_HF  the model's Hugging Face directory; required
#   TP_SIZE, PP_SIZE  the layout of Megatron's ranks (1, 1)
#   WORK_PATH     where folders are made, and removed in the end (a new one under TMPDIR)
set -euo pipefail
src=$(cd "$(dirname "${BASH_SOURCE[0]}")/../src" && pwd)
source "$src/../../../scripts/find_moetron.sh"
need_variables "CKPT_PATH_HF=Qwen2-7B" CKPT_PATH_HF
program=$(find_moetron "$src/../../..")
work=$(mktemp -d "${WORK_PATH:-${TMPDIR:-/tmp}}/ckpt_convert.XXXXXX")
trap 'rm -rf "$work"' EXIT

python3 "$src/convert_hf_to_middle_file.py" --load-path "$CKPT_PATH_HF" --save-path "$work/middle_file1" \
  --model 'Qwen2' --use-gpu-num 0 --process-num 16
python3 "$src/convert_middle_file_to_mg.py" --load-path "$work/middle_file1" --save-path "$work/mg" --model 'Qwen2' \
  --tp-size "${TP_SIZE:-1}" --tpe-size 1 --ep-size 1 --pp-size "${PP_SIZE:-1}" --use-gpu-num 0 --process-num 16
python3 "$src/convert_mg_to_middle_file.py" --load-path "$work/mg" --save-path "$work/middle_file2" --model 'Qwen2' \
  --use-gpu-num 0 --process-num 16
"$program" compare "$work/middle_file1" "$work/middle_file2"
