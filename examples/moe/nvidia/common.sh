# Sourced by the scripts of this folder: the environment they share, and how they start the ranks of this node.
#
# Required: TP TPE EP PP NNODES NODE_RANK. Outside torchrun a platform's WORLD_SIZE and RANK count nodes and serve as
# NNODES and NODE_RANK. Optional, with their defaults: GPUS_PER_NODE 8, MASTER_ADDR localhost, MASTER_PORT 7000,
# SEED 1234, TD allgather_fused, SCHED (or SCHD) 1f1b, GLOBAL_BATCH_SIZE 4096, GROUP_GEMM 0, GROUP_GEMM_TE 0,
# RECOMPUTE 0, CPU_ADAM 0, USE_FLASH3 0, PROJECT_PATH (this checkout, of an installation the current folder; the
# logs lie there in result/); without one: VPP HPP LOAD_PATH SAVE_PATH
# FORCE_DROP_AND_PADDING DP_OVERLAP MOE_LAYER_RECOMPUTE MLP_RECOMPUTE SHARED_STORAGE EXTRA_ARGS.
# --dry-run as the script's argument, or DRY_RUN=1, starts nothing: it tells what each rank of the whole run would hold
# and how fast it would be. PRINT_ONLY=1 prints the command of this node.
set -euo pipefail
case ${1:-} in
  "") ;;
  --dry-run) DRY_RUN=1 ;;
  *)
    echo "$(basename "$0"): unknown argument $1; there is --dry-run" >&2
    exit 2
    ;;
esac

export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-32}
export TORCH_NCCL_AVOID_RECORD_STREAMS=1
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
export NVTE_BWD_LAYERNORM_SM_MARGIN=16
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-10}
export ARCH=${ARCH:-NVIDIA_H100}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
[ "${checkout%/share/moetron}" = "$checkout" ] || PROJECT_PATH=${PROJECT_PATH:-$PWD}
PROJECT_PATH=${PROJECT_PATH:-$checkout}
source "$checkout/scripts/find_moetron.sh"
WORKSPACE=${WORKSPACE:-/workspace}

if [ -z "${TORCHELASTIC_RUN_ID:-}" ]; then
  NNODES=${NNODES:-${WORLD_SIZE:-}}
  NODE_RANK=${NODE_RANK:-${RANK:-}}
fi
[ "${DRY_RUN:-0}" != 1 ] || NODE_RANK=0  # it is about all nodes
need_variables "TP=1 TPE=1 EP=8 PP=1 NNODES=1 NODE_RANK=0" TP TPE EP PP NNODES NODE_RANK

GPUS_PER_NODE=${GPUS_PER_NODE:-8}
MASTER_ADDR=${MASTER_ADDR:-localhost}
MASTER_PORT=${MASTER_PORT:-7000}
SEED=${SEED:-1234}
TD=${TD:-allgather_fused}
SCHED=${SCHED:-${SCHD:-1f1b}}
MAX_SEQ_LEN=${MAX_SEQ_LEN:-4096}
GLOBAL_BATCH_SIZE=${GLOBAL_BATCH_SIZE:-4096}
MICRO_BATCH_SIZE=${MICRO_BATCH_SIZE:-1}
TRAIN_TOKENS=${TRAIN_TOKENS:-1000000000}
WARMUP_TOKENS=10000
TRAIN_ITERS=${TRAIN_ITERS:-$((TRAIN_TOKENS / GLOBAL_BATCH_SIZE / MAX_SEQ_LEN))}
LR_WARMUP_ITERS=$((WARMUP_TOKENS / GLOBAL_BATCH_SIZE / MAX_SEQ_LEN))

# What both models share, as arguments.
parallel_arguments=(
  --bf16 --use-distributed-optimizer --sequence-parallel --transformer-impl transformer_engine --use-flash-attn
  --tensor-model-parallel-size "$TP" --tensor-model-parallel-for-expert "$TPE"
  --expert-model-parallel-size "$EP" --pipeline-model-parallel-size "$PP" --moe-token-dispatcher-type-patch "$TD")
[ "${USE_FLASH3:-0}" != 1 ] || parallel_arguments+=(--module-impl '{"core_attn":"local"}')
if [ "${GROUP_GEMM:-0}" = 1 ]; then
  parallel_arguments+=(--moe-grouped-gemm)
elif [ "${GROUP_GEMM_TE:-0}" = 1 ]; then
  parallel_arguments+=(--moe-grouped-gemm-te)
fi
[ -z "${FORCE_DROP_AND_PADDING:-}" ] || parallel_arguments+=(--force-drop-and-padding)
[ -z "${VPP:-}" ] || parallel_arguments+=(--num-layers-per-virtual-pipeline-stage "$VPP")
[ "$CUDA_DEVICE_MAX_CONNECTIONS" -le 1 ] || parallel_arguments+=(--no-async-tensor-model-parallel-allreduce)
[ "$SCHED" = 1f1b ] || parallel_arguments+=(--scheduler "$SCHED")
if [ -n "${HPP:-}" ]; then
  read -ra stages <<<"$HPP"
  if [ "$SCHED" = 1f1b ]; then
    parallel_arguments+=(--hetero-pipeline-stages "${stages[@]}")
  else
    parallel_arguments+=(--virtual-hetero-pipeline-stages "${stages[@]}")
  fi
fi
if [ "${RECOMPUTE:-0}" = 1 ]; then
  parallel_arguments+=(--recompute-method uniform --recompute-num-layers 1 --recompute-granularity full)
elif [ "${MOE_LAYER_RECOMPUTE:-0}" = 1 ]; then
  parallel_arguments+=(--moe-layer-recompute)
elif [ "${MLP_RECOMPUTE:-0}" = 1 ]; then
  parallel_arguments+=(--mlp-recompute)
fi
if [ "${CPU_ADAM:-0}" = 1 ]; then
  parallel_arguments+=(--optimizer hybridadam --optimizer-offload-policy static --optimizer-offload-fraction 1
    --optimizer-enable-pin)
fi
[ "${DP_OVERLAP:-0}" != 1 ] || parallel_arguments+=(--overlap-grad-reduce)

training_arguments=(
  --seq-length "$MAX_SEQ_LEN" --micro-batch-size "$MICRO_BATCH_SIZE" --global-batch-size "$GLOBAL_BATCH_SIZE"
  --train-iters "$TRAIN_ITERS" --lr 5e-6 --min-lr 1e-6 --lr-decay-style cosine --lr-decay-iters "$TRAIN_ITERS"
  --lr-warmup-iters "$LR_WARMUP_ITERS" --attention-dropout 0.0 --hidden-dropout 0.0 --weight-decay 0.1
  --adam-beta1 0.9 --adam-beta2 0.95 --clip-grad 1.0 --init-method-std 0.008 --seed "$SEED"
  --log-interval 1 --log-throughput --timing-log-level 2 --save-interval 10000 --eval-interval 1000 --eval-iters -1
  --num-workers 8 --split 99,1,0 --dataset LLama-Pretrain-Idxmap)
[ -z "${LOAD_PATH:-}" ] || training_arguments+=(--load "$LOAD_PATH")
[ -z "${SAVE_PATH:-}" ] || training_arguments+=(--save "$SAVE_PATH")

# Where there is no torchrun, `moetron launch` starts ranks: it knows the same options.
find_torchrun() {
  command -v torchrun || ls "$PROJECT_PATH"/.venv*/bin/torchrun 2>/dev/null | head -n 1
}

# With SHARED_STORAGE, node 0 copies the data sets there once, before a run on several nodes; the others wait for it.
share_datasets() {
  [ -n "${SHARED_STORAGE:-}" ] || return 0
  local done="$SHARED_STORAGE/datasets/.complete"
  if [ "$NODE_RANK" = 0 ] && [ ! -e "$done" ]; then
    cp -r "$WORKSPACE/datasets" "$SHARED_STORAGE/"
    touch "$done"
  fi
  until [ -e "$done" ]; do sleep 5; done
}

# run_pretrain ARGUMENT...: starts this node's ranks; what they print goes to the screen and into the log folder.
run_pretrain() {
  local program torchrun launcher command extra=() log
  program=$(find_moetron "$PROJECT_PATH")
  read -rd '' -a extra <<<"${EXTRA_ARGS:-}" || true  # of several lines, too
  command=("$program" pretrain "${parallel_arguments[@]}" "$@" "${training_arguments[@]}" ${extra[@]+"${extra[@]}"})
  if [ "${DRY_RUN:-0}" = 1 ]; then
    exec "${command[@]}" --dry-run --world-size $((NNODES * GPUS_PER_NODE))
  fi
  launcher=("$program" launch)
  torchrun=$(find_torchrun || true)
  [ -z "$torchrun" ] || launcher=("$torchrun" --no-python)
  launcher+=(--nproc_per_node "$GPUS_PER_NODE" --nnodes "$NNODES" --node_rank "$NODE_RANK"
    --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT")
  [ -n "$torchrun" ] || command=("${command[@]:1}")  # launch starts its own program
  command=("${launcher[@]}" "${command[@]}")
  if [ "${PRINT_ONLY:-0}" = 1 ]; then
    printf '%q ' "${command[@]}"
    echo
    return
  fi
  share_datasets
  log=$PROJECT_PATH/result/NNODES${NNODES}_$(date +%Y%m%d%H%M%S)_test_TP${TP}_TPE${TPE}_EP${EP}_PP${PP}
  mkdir -p "$log"
  echo "log: $log/rank$NODE_RANK.log"
  "${command[@]}" 2>&1 | tee -a "$log/rank$NODE_RANK.log"
}
