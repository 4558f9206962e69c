#!/usr/bin/env bash
#SBATCH --job-name=latemask-preprocess
#SBATCH --nodes=1
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
##SBATCH --partition=… --account=…

# sbatch [flags of sbatch] slurm/preprocess.sh [--config FILE] [options of python -m pipeline]
# On several nodes it runs on a Dask cluster of them (pip install -e '.[dask]').
#SBATCH --output=%x-%j.log --open-mode=append
#SBATCH --requeue --signal=B:USR2@60
set -euo pipefail
. "${SLURM_SUBMIT_DIR:?start this with sbatch or slurm/submit.sh}/slurm/launch.sh"
check preprocess configs/pipeline/wikibooks.yaml "$@"
if [ "$NODES" -eq 1 ]; then
  on_nodes 1 python -m pipeline "${ARGUMENTS[@]}"
else
  on_nodes "$NODES" python slurm/dask_node.py "${ARGUMENTS[@]}"
fi
say "finished: $FOLDER"
