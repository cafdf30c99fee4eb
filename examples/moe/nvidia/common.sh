# Sourced by the scripts of this folder: what both models' pre-training shares. ../../start_ranks.sh tells most of what
# may be set in the environment; besides, with their defaults: GLOBAL_BATCH_SIZE 4096, MICRO_BATCH_SIZE 1,
# MAX_SEQ_LEN 4096, TRAIN_TOKENS 1000000000 or TRAIN_ITERS, WORKSPACE /workspace, SHARE_LIMIT 3600 (seconds); without
# one: LOAD_PATH SAVE_PATH SHARED_STORAGE. Who sources it says in start_example what a start needs, for example.
source "$(dirname "${BASH_SOURCE[0]}")/../../start_ranks.sh"

WORKSPACE=${WORKSPACE:-/workspace}
MAX_SEQ_LEN=${MAX_SEQ_LEN:-4096}
GLOBAL_BATCH_SIZE=${GLOBAL_BATCH_SIZE:-4096}
MICRO_BATCH_SIZE=${MICRO_BATCH_SIZE:-1}
TRAIN_TOKENS=${TRAIN_TOKENS:-1000000000}
WARMUP_TOKENS=10000
SHARE_LIMIT=${SHARE_LIMIT:-3600}
need_counts SHARE_LIMIT MAX_SEQ_LEN GLOBAL_BATCH_SIZE MICRO_BATCH_SIZE TRAIN_TOKENS
TRAIN_ITERS=${TRAIN_ITERS:-$((TRAIN_TOKENS / GLOBAL_BATCH_SIZE / MAX_SEQ_LEN))}
LR_WARMUP_ITERS=$((WARMUP_TOKENS / GLOBAL_BATCH_SIZE / MAX_SEQ_LEN))

training_arguments=(
  --seq-length "$MAX_SEQ_LEN" --micro-batch-size "$MICRO_BATCH_SIZE" --global-batch-size "$GLOBAL_BATCH_SIZE"
  --train-iters "$TRAIN_ITERS" --lr 5e-6 --min-lr 1e-6 --lr-decay-style cosine --lr-decay-iters "$TRAIN_ITERS"
  --lr-warmup-iters "$LR_WARMUP_ITERS" --attention-dropout 0.0 --hidden-dropout 0.0 --weight-decay 0.1
  --adam-beta1 0.9 --adam-beta2 0.95 --clip-grad 1.0 --init-method-std 0.008 --seed "$SEED"
  --log-interval 1 --log-throughput --timing-log-level 2 --save-interval 10000 --eval-interval 1000 --eval-iters -1
  --num-workers 8 --split 99,1,0 --dataset LLama-Pretrain-Idxmap)
[ -z "${LOAD_PATH:-}" ] || training_arguments+=(--load "$LOAD_PATH")
[ -z "${SAVE_PATH:-}" ] || training_arguments+=(--save "$SAVE_PATH")

# With SHARED_STORAGE, node 0 copies the data sets there once, before a run on several nodes; the others wait for it,
# and all read the copy. DATA_PATH names other data, which need no copy.
datasets=${SHARED_STORAGE:-$WORKSPACE}/datasets
share_datasets() {
  [ -n "${SHARED_STORAGE:-}" ] && [ -z "${DATA_PATH:-}" ] || return 0
  local done="$datasets/.complete" waited=0
  if [ "$NODE_RANK" = 0 ] && [ ! -e "$done" ]; then
    if [ ! -d "$WORKSPACE/datasets" ]; then
      echo "$(basename "$0"): WORKSPACE: there is no folder $WORKSPACE/datasets to copy to SHARED_STORAGE" >&2
      exit 3
    fi
    cp -r "$WORKSPACE/datasets" "$SHARED_STORAGE/"
    touch "$done"
  fi
  [ -e "$done" ] || echo "$(basename "$0"): waits for node 0 to copy $WORKSPACE/datasets to $SHARED_STORAGE"
  until [ -e "$done" ]; do
    if [ "$waited" -ge "$SHARE_LIMIT" ]; then
      echo "$(basename "$0"): SHARED_STORAGE: node 0 has not copied the data sets to $SHARED_STORAGE within" \
        "SHARE_LIMIT ($SHARE_LIMIT) seconds" >&2
      exit 3
    fi
    sleep 1
    waited=$((waited + 1))
  done
}

# run_pretrain ARGUMENT...: the arguments of the model, between those of the layout and of training.
run_pretrain() {
  start_ranks share_datasets pretrain "$@" "${training_arguments[@]}"
}
