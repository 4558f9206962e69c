#!/usr/bin/env bash
#SBATCH --job-name=latemask-preprocess
#SBATCH --nodes=1
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --output=%x-%j.log
# sbatch slurm/preprocess.sh [--config configs/pipeline/FILE.yaml] [pipeline options]
set -euo pipefail
. "${SLURM_SUBMIT_DIR:?use sbatch}/slurm/launch.sh"
case " $* " in *" --config "*) ;; *) set -- --config configs/pipeline/wikibooks.yaml "$@" ;; esac
exec python -m pipeline "$@"
