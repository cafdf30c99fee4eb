# Sourced by the examples, with the model's published name in `model`: from CKPT_PATH_MG to CKPT_PATH_HF.
set -euo pipefail
src=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$src/../../../scripts/find_moetron.sh"
need_variables "CKPT_PATH_HF=$model CKPT_PATH_MG=${model}_mg" CKPT_PATH_HF CKPT_PATH_MG
middle=$CKPT_PATH_MG.middle_file
trap 'rm -rf "$middle"' EXIT

python3 "$src/convert_mg_to_middle_file.py" --load-path "$CKPT_PATH_MG" --save-path "$middle" \
  --model "$model" \
  --use-gpu-num 0 --process-num 16
python3 "$src/convert_middle_file_to_hf.py" --load-path "$middle" --save-path "$CKPT_PATH_HF" \
  --model "$model" \
  --use-gpu-num 0 --process-num 16
