#!/usr/bin/env bash
# slurm/submit.sh [flags of sbatch] slurm/SCRIPT.sh [arguments]: sbatch, checked before the queue.
# The job is submitted on hold, so that Slurm itself says what its flags amount to; settings, paths
# and batch are checked for that here, in seconds; then the job is released, or cancelled with the
# reason. Prints the job's number and the folder it will write. With --dependency, what an earlier
# job writes need not be there yet.
set -euo pipefail
cd "$(dirname "$0")/.."

flags=()
while [[ ${1:?no script among the arguments} != *.sh ]]; do flags+=("$1"); shift; done
job="$(sbatch --parsable --hold "${flags[@]}" "$@")"
job="${job%%;*}"
trap 'scancel "$job"' EXIT

details="$(scontrol show job "$job" --oneliner)"
value() { grep -oP "(?<=\s)$1=\K\S+" <<<"$details" | head -n 1; }
nodes="$(value NumNodes)"
gpus="$(grep -oP '\sTresPerNode=\S*gpu:(\S*:)?\K[1-9][0-9]*' <<<"$details" || true)"
[ "$(value Dependency)" = "(null)" ] || LATER=1
folder="$(SLURM_SUBMIT_DIR="$PWD" SLURM_JOB_NUM_NODES="${nodes##*-}" SLURM_GPUS_ON_NODE="${gpus:-1}" \
  LATEMASK_CHECK="--submitting${LATER:+ --later}" bash "$@")"
trap - EXIT
scontrol release "$job"
echo "$job $folder"
