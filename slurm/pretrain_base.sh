#!/usr/bin/env bash
#SBATCH --job-name=latemask-base
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
##SBATCH --partition=… --account=…

# sbatch [flags of sbatch] slurm/pretrain_base.sh [--group.key value …]; nothing below needs editing.
#SBATCH --output=%x-%j.log --open-mode=append
#SBATCH --requeue --signal=B:USR2@300
set -euo pipefail
. "${SLURM_SUBMIT_DIR:?start this with sbatch or slurm/submit.sh}/slurm/launch.sh"
pretrain configs/pretrain/base.yaml "$@"
