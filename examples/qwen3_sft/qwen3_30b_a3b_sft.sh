#!/bin/bash
# Fine-tunes Qwen3-30B-A3B on conversations, on the ranks of this node. Required: TP TPE EP PP NNODES NODE_RANK. What
# else may be set is told in ../start_ranks.sh and workspace.sh; besides, with their defaults:
#   SAVE_PATH  the layout's folder, such as qwen3_30b_a3b_mg_tp1_tpe1_ep2_pp4 in the workspace
#   LOAD_PATH  the same; a Hugging Face directory, or Megatron files of any layout. Where the layout's folder was to be
#              loaded and was never converted, it is qwen3_30b_a3b_hf, as a line says.
#   log_path   set by who writes the log itself, as the guide's commands do; without it this script writes one
#   MAX_SEQ_LEN GLOBAL_BATCH_SIZE MICRO_BATCH_SIZE TRAIN_ITERS EPOCHS LR   as `moetron sft` chooses, which says why
export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1}
TD=${TD:-allgather}
start_example="TP=1 TPE=1 EP=2 PP=4 NNODES=1 NODE_RANK=0 CPU_ADAM=1"
source "$(dirname "${BASH_SOURCE[0]}")/../start_ranks.sh"
source "$(dirname "${BASH_SOURCE[0]}")/workspace.sh"
[ -z "${log_path:-}" ] || keeps_log=0

folder=$(layout_folder "$TP" "$TPE" "$EP" "$PP")
save=${SAVE_PATH:-$folder}
load=${LOAD_PATH:-$folder}
holds_model() { is_hf "$1" || is_megatron "$1"; }
# What the same folder holds besides is this run's own checkpoints; of another folder, they are what is asked for.
if [ "$load" = "$folder" ] && ! holds_model "$load" && is_hf "$hf" &&
  { [ "$load" = "$save" ] || [ -z "$(newest_step "$load")" ]; }; then
  echo "$(basename "$0"): $load was not converted, which training does not need: loads $hf"
  load=$hf
fi
if [ "${#in_place_of_run[@]}" != 0 ]; then  # what is not here is assumed
  if [ ! -d "$load" ]; then
    echo "$(basename "$0"): $load is not here: the shape is that of the released Qwen3-30B-A3B"
    load=$examples/qwen3_sft/qwen3_30b_a3b_shape
  fi
else
  [ -d "$load" ] ||
    fail 3 "LOAD_PATH: there is no folder $load; name a Hugging Face model, or put one into $hf"
  [ -f "$data" ] ||
    fail 3 "DATA_PATH: there is no file $data; scripts/alpaca_to_openai.py makes it, or name another one"
fi

training_arguments=(--load "$load" --save "$save" --data-path "$data" --seed "$SEED" --log-throughput)
[ "${#in_place_of_run[@]}" = 0 ] && [ -z "${TOKENIZER_PATH:-}" ] && [ ! -d "$tokenizer" ] ||
  training_arguments+=(--tokenizer-model "$tokenizer")
for setting in seq-length=MAX_SEQ_LEN global-batch-size=GLOBAL_BATCH_SIZE micro-batch-size=MICRO_BATCH_SIZE \
  train-iters=TRAIN_ITERS epochs=EPOCHS lr=LR; do
  name=${setting#*=}
  [ -z "${!name:-}" ] || training_arguments+=("--${setting%%=*}" "${!name}")
done
start_ranks true sft "${training_arguments[@]}"
