#!/usr/bin/env bash
# What `make demo` runs: the three stages' own commands, then the report. Each of them resumes where
# it was interrupted and leaves finished work alone, so this script may be started again any time.
set -euo pipefail
cd "$(dirname "$0")/.."

OUT=runs/demo
SECONDS=0
step() { printf '\n\033[1m[%3d s] %s\033[0m\n' "$SECONDS" "$*"; }
# Training logs to stderr; what the launcher says of itself is kept in a file.
pretrain() {
  mkdir -p "$OUT"
  deepspeed --num_accelerators "$RANKS" pretrain/main.py --config configs/pretrain/demo.yaml "$@" \
    >> "$OUT/deepspeed.log"
}

# One rank a GPU, or two on the processor, where DeepSpeed is told so lest it warns of no GPU.
GPUS=$(python -c 'import torch; print(torch.cuda.device_count())')
RANKS=$((GPUS > 0 ? 1 : 2))
[ "$GPUS" -gt 0 ] || export DS_ACCELERATOR=cpu

step "1/6 corpus: the docstrings of installed packages, as tar shards"
python -m pipeline --config configs/pipeline/demo.yaml

step "2/6 pretrain with late masking, 50 %"
pretrain

step "3/6 the same with vanilla masking, 15 %, on the same budget"
# Of the learning rates 2e-3 and 3e-3 each has the one at which it learns faster.
pretrain --masking.rate 0.15 --masking.insert_layer 0 --optimizer.lr 2e-3 --run.output_dir "$OUT/vanilla"

step "4/6 two tasks, finetuned and masked"
glue() {
  python -m finetune.glue --config configs/glue/demo.yaml --seed "$1" \
    --model_name_or_path "$OUT/late/hf" --data_dir "$OUT/data/tasks" --output_dir "$OUT/glue"
}
# Side by side, a core each: matrices this small gain nothing from a second thread.
OMP_NUM_THREADS=1 glue 1 &
first=$!
trap 'kill "$first" 2>/dev/null || true' EXIT
OMP_NUM_THREADS=1 glue 2
wait "$first"
trap - EXIT
python -m finetune.glue table "$OUT/glue"

step "5/6 pictures: filled masks, t-SNE"
if [ ! -s "$OUT/filled.jsonl" ]; then
  python -m pretrain.fill_mask "$OUT/late/hf" --output "$OUT/filled.jsonl" \
    --text "Returns the number<mask> elements in the list." \
    --text "The default is<mask>." \
    --text "If True, return<mask> copy of the array." \
    --text "This function is used<mask> create a new object."
fi
if [ ! -s "$OUT/tsne.png" ]; then
  python -m reproduce weight_masks tsne --config configs/glue/demo.yaml --task_name library --seed 1 \
    --model_name_or_path "$OUT/late/hf" --data_dir "$OUT/data/tasks" --runs "$OUT/glue" \
    --output_dir "$OUT"
fi

step "6/6 report"
python -m demo.report "$OUT"
