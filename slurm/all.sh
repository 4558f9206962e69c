#!/usr/bin/env bash
CORPUS="${CORPUS:-configs/pipeline/wikibooks.yaml}" # what is preprocessed
SIZE="${SIZE:-large}"     # base or large
PRETRAIN="${PRETRAIN:-}"  # flags of sbatch for pretraining, as --nodes=2; its script has the rest
CHAIN="${CHAIN:-1}"       # pretraining jobs in a row: more where no job may requeue itself
GLUE="${GLUE:-}"          # flags of finetune.glue, as --data_dir=glue where nodes have no network
# Partition and account of all of them: SBATCH_PARTITION, SBATCH_ACCOUNT in the environment.

# slurm/all.sh [--group.key value …]: preprocess, then pretrain (with these settings), then GLUE;
# each waits for the one before, and all are checked now. Started again, finished stages end at once.
set -euo pipefail
cd "$(dirname "$0")/.."

read -ra PRETRAIN <<<"$PRETRAIN"
read -ra GLUE <<<"$GLUE"
jobs=()
trap '[ ${#jobs[@]} -eq 0 ] || scancel "${jobs[@]}"' EXIT # all of them, or none
# submit WHAT ARGUMENT…: sets `job` and `folder`.
submit() {
  local answer
  answer="$(slurm/submit.sh --kill-on-invalid-dep=yes "${@:2}")"
  read -r job folder <<<"$answer"
  jobs+=("$job")
  echo "$1: job $job, to $folder"
}

submit preprocess slurm/preprocess.sh --config "$CORPUS"
after="afterok:$job" data="$folder"
for ((i = 0; i < CHAIN; i++)); do
  submit pretrain --dependency="$after" "${PRETRAIN[@]}" "slurm/pretrain_$SIZE.sh" \
    "$@" --data.path "$data"
  after="afterany:$job"
done
submit glue --dependency="afterok:$job" slurm/glue.sh \
  --model_name_or_path "$folder/hf" --output_dir "$folder/glue" "${GLUE[@]}"
jobs=()
