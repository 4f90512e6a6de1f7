#!/bin/bash
# Forty tasks that add fifty models each to one store, and know nothing of each other.
#
#   memdb init --dataset cifar100 --data-root $HOME/data --store $HOME/cifar100.zarr
#   STORE=$HOME/cifar100.zarr DATA=$HOME/data sbatch --array=0-39 slurm-array.sh
#
# The store is a folder that all nodes share, or a bucket. A task that is preempted and requeued, or submitted again,
# has the same models: those that it has committed are skipped.

#SBATCH --job-name=memdb
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60

set -euo pipefail
export MEMDB_DATA_ROOT="$DATA"

# srun: Slurm sends SIGTERM to job steps, and memdb ends cleanly; --max-time: it ends before Slurm ends it
exec $(command -v srun) memdb train \
    --store "$STORE" \
    --device "${DEVICE:-cuda}" \
    --add "${MODELS:-50}" \
    --task-id "$SLURM_ARRAY_TASK_ID" \
    --checkpoint-dir "${CHECKPOINTS:-$HOME/.cache/memdb/checkpoints}" \
    --max-time 1h55m
