# Sourced by the scripts that train (moe/nvidia, qwen3_sft): the environment they share, the arguments that follow from
# it, and how they start the ranks of this node.
#
# Required: TP TPE EP PP NNODES NODE_RANK. Outside torchrun a platform's WORLD_SIZE and RANK count nodes and serve as
# NNODES and NODE_RANK. Optional, with their defaults: GPUS_PER_NODE 8, MASTER_ADDR localhost, MASTER_PORT 7000,
# SEED 1234, TD allgather_fused, SCHED (or SCHD) 1f1b, GROUP_GEMM 0, GROUP_GEMM_TE 0, RECOMPUTE 0, CPU_ADAM 0,
# USE_FLASH3 0, PROJECT_PATH (this checkout, of an installation the current folder; the logs lie there in result/);
# without one: VPP HPP FORCE_DROP_AND_PADDING DP_OVERLAP MOE_LAYER_RECOMPUTE MLP_RECOMPUTE EXTRA_ARGS.
# LAUNCHER=torchrun starts the ranks by torchrun, not by `moetron launch`, which knows the same options.
# --dry-run as the script's argument, or DRY_RUN=1, starts nothing: it tells what each rank of the whole run would hold
# and how fast it would be. --check-layout, or CHECK_LAYOUT=1, trains one step of a shrunken model in the run's layout
# on this machine's cores, beside one rank. PRINT_ONLY=1 prints the command of this node.
set -euo pipefail
case ${1:-} in
  "") ;;
  --dry-run) DRY_RUN=1 ;;
  --check-layout) CHECK_LAYOUT=1 ;;
  *)
    echo "$(basename "$0"): unknown argument $1; there are --dry-run and --check-layout" >&2
    exit 2
    ;;
esac
in_place_of_run=()  # both speak for all nodes, whichever asks
[ "${DRY_RUN:-0}" != 1 ] || in_place_of_run+=(--dry-run)
[ "${CHECK_LAYOUT:-0}" != 1 ] || in_place_of_run+=(--check-layout)

export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-32}
export TORCH_NCCL_AVOID_RECORD_STREAMS=1
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
export NVTE_BWD_LAYERNORM_SM_MARGIN=16
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-10}
export ARCH=${ARCH:-NVIDIA_H100}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ "${checkout%/share/moetron}" = "$checkout" ] || PROJECT_PATH=${PROJECT_PATH:-$PWD}
PROJECT_PATH=${PROJECT_PATH:-$checkout}
source "$checkout/scripts/find_moetron.sh"
source "$checkout/examples/schedule.sh"

if [ -z "${TORCHELASTIC_RUN_ID:-}" ]; then
  NNODES=${NNODES:-${WORLD_SIZE:-}}
  NODE_RANK=${NODE_RANK:-${RANK:-}}
fi
[ "${#in_place_of_run[@]}" = 0 ] || NODE_RANK=0
# An example that fits is the script's own.
need_variables "$start_example" TP TPE EP PP NNODES NODE_RANK

GPUS_PER_NODE=${GPUS_PER_NODE:-8}
need_counts TP TPE EP PP NNODES GPUS_PER_NODE
need_number NODE_RANK 0 $((NNODES - 1))
MASTER_ADDR=${MASTER_ADDR:-localhost}
MASTER_PORT=${MASTER_PORT:-7000}
SEED=${SEED:-1234}
TD=${TD:-allgather_fused}
keeps_log=1  # 0: who called the script writes what it prints into a log

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
parallel_arguments+=(${schedule_arguments[@]+"${schedule_arguments[@]}"})
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

find_torchrun() {
  local found
  command -v torchrun && return
  for found in "$PROJECT_PATH"/.venv*/bin/torchrun; do
    [ ! -x "$found" ] || { echo "$found"; return; }
  done
  echo "$(basename "$0"): LAUNCHER (torchrun) is not in PATH, nor in a .venv of PROJECT_PATH ($PROJECT_PATH)" >&2
  return 2
}

# start_ranks BEFORE COMMAND ARGUMENT...: starts this node's ranks of `moetron COMMAND`, after the function BEFORE; what
# they print goes to the screen and into the log folder.
start_ranks() {
  local before=$1 program torchrun launcher command extra=() log
  shift
  program=$(find_moetron "$PROJECT_PATH")
  read -rd '' -a extra <<<"${EXTRA_ARGS:-}" || true  # of several lines, too
  command=("$program" "$1" "${parallel_arguments[@]}" "${@:2}" ${extra[@]+"${extra[@]}"})
  if [ "${#in_place_of_run[@]}" != 0 ]; then
    # A platform's WORLD_SIZE and RANK count nodes; the program would take them, or a batch system's, for ranks.
    unset WORLD_SIZE RANK LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
    unset ${!SLURM_@} ${!OMPI_@} ${!PMI_@}
    exec "${command[@]}" "${in_place_of_run[@]}" --world-size $((NNODES * GPUS_PER_NODE))
  fi
  case ${LAUNCHER:=moetron} in
    moetron)
      launcher=("$program" launch)
      command=("${command[@]:1}")  # it starts its own program
      ;;
    torchrun)
      torchrun=$(find_torchrun)
      launcher=("$torchrun" --no-python)
      ;;
    *)
      echo "$(basename "$0"): LAUNCHER ($LAUNCHER) must be moetron or torchrun" >&2
      exit 2
      ;;
  esac
  launcher+=(--nproc_per_node "$GPUS_PER_NODE" --nnodes "$NNODES" --node_rank "$NODE_RANK"
    --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT")
  command=("${launcher[@]}" "${command[@]}")
  if [ "${PRINT_ONLY:-0}" = 1 ]; then
    printf '%q ' "${command[@]}"
    echo
    return
  fi
  "$before"
  if [ "$keeps_log" = 0 ]; then
    "${command[@]}"
    return
  fi
  log=$PROJECT_PATH/result/NNODES${NNODES}_$(date +%Y%m%d%H%M%S)_test_TP${TP}_TPE${TPE}_EP${EP}_PP${PP}
  mkdir -p "$log"
  echo "log: $log/rank$NODE_RANK.log"
  "${command[@]}" 2>&1 | tee -a "$log/rank$NODE_RANK.log"
}
