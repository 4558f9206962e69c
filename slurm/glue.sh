#!/usr/bin/env bash
#SBATCH --job-name=latemask-glue
#SBATCH --array=0-7
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --output=%x-%A_%a.log
# sbatch slurm/glue.sh --model_name_or_path runs/base/hf --output_dir runs/base/glue [glue flags]
# One task an array element; afterwards: python -m finetune.glue table runs/base/glue
set -euo pipefail
. "${SLURM_SUBMIT_DIR:?use sbatch}/slurm/launch.sh"
TASKS=(cola sst2 mrpc stsb qqp mnli qnli rte)
exec python -m finetune.glue --config configs/glue/roberta.yaml \
  --task_name "${TASKS[$SLURM_ARRAY_TASK_ID]}" --method finetune mask --do_train --do_eval "$@"
