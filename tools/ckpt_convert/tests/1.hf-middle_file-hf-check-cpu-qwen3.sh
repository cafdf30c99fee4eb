#!/bin/bash
# A model (Qwen3, say) to a middle file and back: the weights stay what they are in bf16.
#   CKPT_PATH_HF  the model's Hugging Face directory, in bf16; required
#   WORK_PATH     where folders are made, and removed in the end (a new one under TMPDIR)
set -euo pipefail
src=$(cd "$(dirname "${BASH_SOURCE[0]}")/../src" && pwd)
source "$src/../../../scripts/find_moetron.sh"
need_variables "CKPT_PATH_HF=Qwen3-8B" CKPT_PATH_HF
program=$(find_moetron "$src/../../..")
work=$(mktemp -d "${WORK_PATH:-${TMPDIR:-/tmp}}/ckpt_convert.XXXXXX")
trap 'rm -rf "$work"' EXIT

python3 "$src/convert_hf_to_middle_file.py" --load-path "$CKPT_PATH_HF" --save-path "$work/middle_file" \
  --model 'Qwen3' --use-gpu-num 0 --process-num 16
python3 "$src/convert_middle_file_to_hf.py" --load-path "$work/middle_file" --save-path "$work/hf" \
  --model 'Qwen3' --use-gpu-num 0 --process-num 16
"$program" compare "$CKPT_PATH_HF" "$work/hf"
