#!/bin/bash
# Trains on 4 nodes of 8 GPUs each:
#   SAVE=/shared/run sbatch examples/slurm/several_nodes.sh --config run.toml
# As one_node.sh, and besides: SAVE and the data must be the same folders on every node. Ranks are numbered node by
# node (--distribution=block), so that tensor and expert parallelism stay within a node. They meet at the first host of
# the step, at port 20000 + the last four digits of the job's number; MASTER_ADDR and MASTER_PORT set another place.
#SBATCH --job-name=moetron
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=10
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
: "${SAVE:?set SAVE, the folder of checkpoints, which all nodes share}"

# Where nodes have several networks, name the one between them: NCCL_SOCKET_IFNAME, and GLOO_SOCKET_IFNAME on CPUs.
srun --kill-on-bad-exit=1 --distribution=block "${MOETRON:-moetron}" pretrain --save "$SAVE" "$@"
code=$?
[ "$code" != 75 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
