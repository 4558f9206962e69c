#!/usr/bin/env bash
# slurm/status.sh [LOG …]: where each job stands (all logs of this folder, unless some are named):
# its state, starts, and the last line of its training with step, loss and time left.
set -eu
shopt -s nullglob
[ $# -gt 0 ] || set -- latemask-*.log
for log in "$@"; do
  last="$(grep -aE '^=== .* job [0-9]+: ' "$log" | tail -n 1)" || true
  job="$(sed -E 's/.* job ([0-9]+): .*/\1/' <<<"$last")"
  state="$(squeue --noheader --jobs "${job:-0}" --format '%T, %M of %l, %R' 2>/dev/null)" || true
  echo "$log: ${state:-no longer queued}; restarts: $(($(grep -acE '^=== .*: start ' "$log") - 1))"
  echo "  ${last#=== }"
  grep -aE '\| step [0-9,]+ \| loss .* \| ETA ' "$log" | tail -n 1 | sed 's/^/  /'
done
