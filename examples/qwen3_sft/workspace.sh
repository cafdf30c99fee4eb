# Sourced by the scripts of this folder: where the files of the walk lie (docs/qwen3_sft.md). QWEN3_SFT_WORKSPACE names
# the folder of all of them; HF_PATH, DATA_PATH, TOKENIZER_PATH and RELEASE_PATH another place for one.
set -euo pipefail
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$examples/../scripts/find_moetron.sh"
QWEN3_SFT_WORKSPACE=${QWEN3_SFT_WORKSPACE:-/mnt/public/example_qwen3_sft}
hf=${HF_PATH:-$QWEN3_SFT_WORKSPACE/qwen3_30b_a3b_hf}
tokenizer=${TOKENIZER_PATH:-$QWEN3_SFT_WORKSPACE/qwen3_30b_a3b_tokenizer}
alpaca=$QWEN3_SFT_WORKSPACE/data/alpaca_data_zh_51k.json
data=${DATA_PATH:-$QWEN3_SFT_WORKSPACE/data/alpaca_converted.json}
release=${RELEASE_PATH:-$QWEN3_SFT_WORKSPACE/qwen3_30b_a3b_hf_release}

# fail CODE SENTENCE
fail() {
  echo "$(basename "$0"): $2" >&2
  exit "$1"
}

# The folder of a layout's Megatron files, where training saves as well.
layout_folder() {  # TP TPE EP PP
  echo "$QWEN3_SFT_WORKSPACE/qwen3_30b_a3b_mg_tp$1_tpe$2_ep$3_pp$4"
}

is_hf() { [ -f "$1/config.json" ] && [ ! -f "$1/latest_checkpointed_iteration.txt" ]; }
is_megatron() { [ -f "$1/latest_checkpointed_iteration.txt" ]; }

# The newest checkpoint that training has saved in a folder; nothing where there is none.
newest_step() {
  local step newest=
  for step in "$1"/step_*; do  # the numbers have leading zeros
    [ ! -f "$step/manifest.json" ] || newest=$step
  done
  echo "$newest"
}

[ "${DRY_RUN:-0}" = 1 ] || [ "${CHECK_LAYOUT:-0}" = 1 ] || [ -d "$QWEN3_SFT_WORKSPACE" ] ||
  fail 3 "QWEN3_SFT_WORKSPACE: there is no folder $QWEN3_SFT_WORKSPACE; make it, or name another one"
