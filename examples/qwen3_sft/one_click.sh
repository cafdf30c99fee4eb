#!/bin/bash
# The whole walk of docs/qwen3_sft.md on one node: tokenizer, model and conversations are downloaded where they are not
# in the workspace, then converted, trained on, converted back, and asked a few questions. Started again, it goes on.
#   one_click.sh [1|2] [--dry-run]   layout 1: tp1 tpe1 ep2 pp4 (without an argument); layout 2: tp1 tpe1 ep1 pp8;
#                                    --dry-run tells what training would need, and neither downloads nor starts anything
# Variables are those of qwen3_30b_a3b_sft.sh. SCHD=dualpipev is the other schedule. MEGATRON=0 leaves out the Megatron
# files, which training does not need.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export QWEN3_SFT_WORKSPACE=${QWEN3_SFT_WORKSPACE:-/mnt/public/example_qwen3_sft}
case ${!#} in
  --dry-run)
    export DRY_RUN=1
    set -- "${@:1:$#-1}"
    ;;
esac
[ "${DRY_RUN:-0}" = 1 ] || mkdir -p "$QWEN3_SFT_WORKSPACE"
source "$here/workspace.sh"
layout=${1:-1}
case $layout in
  1) export TP=1 TPE=1 EP=2 PP=4 ;;
  2) export TP=1 TPE=1 EP=1 PP=8 ;;
  *) fail 2 "layout ($layout) must be 1 or 2" ;;
esac
[ $# -le 1 ] || fail 2 "unknown argument $2; there are the layout, 1 or 2, and --dry-run"
[ "${NNODES:-${WORLD_SIZE:-1}}" = 1 ] ||
  fail 2 "NNODES (${NNODES:-$WORLD_SIZE}) must be 1: on several nodes the steps of docs/qwen3_sft.md are run one by one"
export NNODES=1 NODE_RANK=0 SCHD=${SCHED:-${SCHD:-1f1b}} TD=${TD:-allgather} CPU_ADAM=${CPU_ADAM:-1}
export GROUP_GEMM_TE=${GROUP_GEMM_TE:-1}
[ "${DRY_RUN:-0}" != 1 ] || exec "$here/qwen3_30b_a3b_sft.sh"
folder=$(layout_folder "$TP" "$TPE" "$EP" "$PP")
model=Qwen/Qwen3-30B-A3B
url=https://github.com/ymcui/Chinese-LLaMA-Alpaca/raw/refs/heads/main/data/alpaca_data_zh_51k.json

# say_and_run COMMAND...
say_and_run() {
  echo "+ $*"
  "$@"
}

# download_model FOLDER ARGUMENT...: with the program that is there. One that was cut short leaves its mark, and goes on.
download_model() {
  local to=$1 command
  shift
  if command -v modelscope >/dev/null; then
    command=(modelscope download --model "$model" "$@" --local_dir "$to")
  elif command -v huggingface-cli >/dev/null; then
    command=(huggingface-cli download "$model" "$@" --local-dir "$to")
  elif command -v hf >/dev/null; then
    command=(hf download "$model" "$@" --local-dir "$to")
  else
    fail 3 "$to is not there, and neither is modelscope, huggingface-cli or hf to download $model: put it there"
  fi
  mkdir -p "$to"
  touch "$to/.downloading"
  say_and_run "${command[@]}"
  rm "$to/.downloading"
}

is_complete() { [ -f "$1/$2" ] && [ ! -e "$1/.downloading" ]; }
is_complete "$tokenizer" tokenizer.json || download_model "$tokenizer" --exclude "*.safetensors"
is_complete "$hf" config.json || download_model "$hf"
mkdir -p "$(dirname "$alpaca")"
if [ ! -f "$data" ]; then
  if [ ! -f "$alpaca" ]; then
    command -v wget >/dev/null || fail 3 "$alpaca is not there, and neither is wget to download it: put it there"
    say_and_run wget "$url" -O "$alpaca.part"
    mv "$alpaca.part" "$alpaca"
  fi
  say_and_run "$examples/../scripts/alpaca_to_openai.py" "$alpaca" "$data"
fi

if [ "${MEGATRON:-1}" = 1 ] && [ -z "$(newest_step "$folder")" ] && ! is_megatron "$folder"; then
  say_and_run "$here/convert-hf_mg-qwen3_30b_a3b-$layout.sh"
fi
say_and_run "$here/qwen3_30b_a3b_sft.sh"
say_and_run "$here/convert-mg_hf-qwen3_30b_a3b-$layout.sh"
say_and_run "$here/simple_test.py" --load-path "$release"
