#!/usr/bin/env bash
#SBATCH --job-name=latemask-glue
#SBATCH --array=0-39
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
##SBATCH --partition=… --account=…

# sbatch [flags of sbatch] slurm/glue.sh --model_name_or_path runs/large/hf \
#     --output_dir runs/large/glue [flags of python -m finetune.glue]
# Tasks x seeds are dealt out to the elements of the array, however many those are; each ends by
# making the table again, so that the last one's is whole.
#SBATCH --nodes=1 --output=%x-%A_%a.log --open-mode=append
#SBATCH --requeue --signal=B:USR2@60
set -euo pipefail
read -ra TASKS <<<"${TASKS:-cola sst2 mrpc stsb qqp mnli qnli rte}"
read -ra SEEDS <<<"${SEEDS:-1 2 3 4 5}"
. "${SLURM_SUBMIT_DIR:?start this with sbatch or slurm/submit.sh}/slurm/launch.sh"
jobs=()
for task in "${TASKS[@]}"; do for seed in "${SEEDS[@]}"; do jobs+=("$task $seed"); done; done

first=$((${SLURM_ARRAY_TASK_ID:-0} - ${SLURM_ARRAY_TASK_MIN:-0}))
[ "$first" -lt ${#jobs[@]} ] || exit 0 # more elements than jobs
check glue configs/glue/roberta.yaml --task_name "${TASKS[@]}" "$@"
for ((i = first; i < ${#jobs[@]}; i += ${SLURM_ARRAY_TASK_COUNT:-1})); do
  read -r task seed <<<"${jobs[i]}"
  on_nodes 1 python -m finetune.glue "${ARGUMENTS[@]}" --task_name "$task" --seed "$seed"
done
flock "$FOLDER" "${WRAP[@]}" python -m finetune.glue table "$FOLDER"
say "finished: $FOLDER/table.md"
