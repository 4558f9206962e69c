#!/usr/bin/env bash
#SBATCH --job-name=latemask-large
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# sbatch [sbatch options] slurm/pretrain_large.sh [--group.field value ...]; submit it again to go on.
set -euo pipefail
. "${SLURM_SUBMIT_DIR:?use sbatch}/slurm/launch.sh"
launch configs/pretrain/large.yaml "$@"
