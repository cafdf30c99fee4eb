#!/bin/bash
# Trains on one node of 8 GPUs:
#   SAVE=/shared/run sbatch examples/slurm/one_node.sh --config run.toml
# srun starts a rank for each GPU, and the ranks find each other by what Slurm sets. The arguments are those of
# `moetron pretrain`; MOETRON names the program where it is not in PATH. The same command continues a run.
#SBATCH --job-name=moetron
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
# All GPUs are visible to each rank, which takes its own; --gpus-per-task would hide them from NCCL.
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=10
#SBATCH --time=24:00:00
# Five minutes before the end every rank is asked to stop: the run saves, and leaves with 75.
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
: "${SAVE:?set SAVE, the folder of checkpoints}"

# What is left of the ranks ends as soon as one has failed.
srun --kill-on-bad-exit=1 "${MOETRON:-moetron}" pretrain --save "$SAVE" "$@"
code=$?
# Stopped for want of time: back into the queue, to continue from what was saved.
[ "$code" != 75 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
