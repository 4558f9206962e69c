# shellcheck shell=bash
# Sourced by the job scripts: the environment, the checks, and the life of a job: started on every
# node, stopped in time, requeued, given up. What a site needs (modules, a container, flags of srun)
# is set in slurm/site.env, which git ignores; slurm/site.env.example lists it.

cd "$SLURM_SUBMIT_DIR" || exit

# --wait: once a task has ended, those of a node that has died are not waited for without end.
SRUN=(srun --export=ALL --kill-on-bad-exit=1 --wait=600)
WRAP=()             # what a command is run in: (apptainer exec --nv latemask.sif)
VENV="${LATEMASK_VENV-.venv}" # empty: none
TRIES=3             # ends in a row that brought nothing new, before a job gives up
SAVE_SECONDS=240    # from the signal before the time limit until what hangs is killed
# shellcheck source=/dev/null
if [ -f slurm/site.env ]; then . slurm/site.env; fi
if [ -n "$VENV" ]; then
  [ -f "$VENV/bin/activate" ] || { echo "error: $PWD/$VENV is no environment: make venv" >&2; exit 2; }
  # shellcheck source=/dev/null
  . "$VENV/bin/activate"
fi
RANKS_PER_NODE="${RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-0}}"
[ "$RANKS_PER_NODE" -gt 0 ] || RANKS_PER_NODE=1

# say WORDS…: what status.sh and the count of fruitless tries find again in the log.
say() { printf '=== %(%F %T)T job %s: %s\n' -1 "$SLURM_JOB_ID" "$*"; }

# check STAGE DEFAULT_CONFIG ARGUMENT…: settings, paths and batch are right, or the job ends here.
# Sets ARGUMENTS (with the default config, unless they name one), NODES and FOLDER.
check() {
  local stage="$1" config="$2" answer first flags
  read -ra flags <<<"${LATEMASK_CHECK:-}" # set by submit.sh: only check
  ARGUMENTS=("${@:3}")
  case " ${*:3}" in *" --config"[\ =]*) ;; *) ARGUMENTS=(--config "$config" "${@:3}") ;; esac
  answer="$("${WRAP[@]}" python slurm/check.py --nodes "$SLURM_JOB_NUM_NODES" \
    --ranks-per-node "$RANKS_PER_NODE" "${flags[@]}" "$stage" "${ARGUMENTS[@]}")" || {
    [ -n "${LATEMASK_CHECK:-}" ] || say "gave up: the error above must be fixed first"
    exit 2
  }
  read -r NODES FOLDER <<<"$answer"
  [ -z "${LATEMASK_CHECK:-}" ] || { echo "$FOLDER"; exit 0; }
  # Where the nodes meet. Names of nodes need not resolve; Slurm knows the address.
  first="$(scontrol show node "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)")"
  MASTER_ADDR="${MASTER_ADDR:-$(sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p' <<<"$first")}"
  MASTER_PORT="${MASTER_PORT:-$((20000 + (SLURM_JOB_ID + ${SLURM_RESTART_COUNT:-0}) % 10000))}"
  export MASTER_ADDR MASTER_PORT RANKS_PER_NODE
  say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $NODES nodes of $SLURM_JOB_NODELIST, for $FOLDER"
}

# on_nodes NODES COMMAND…: run it once on each of the first NODES nodes, until it is done; returns
# only then. A job that was told to stop, or whose command failed, is requeued.
on_nodes() {
  local step status told="" interrupted=""
  "${SRUN[@]}" --nodes="$1" --ntasks="$1" --ntasks-per-node=1 \
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} "${WRAP[@]}" "${@:2}" &
  step=$!
  # USR2: the time limit is near (--signal=B:USR2@…), and srun hands it on. TERM (preempted,
  # requeued, cancelled) Slurm has sent to all processes itself.
  trap 'interrupted=1; told="told to stop"; kill -USR2 "$step" || true; { sleep "$SAVE_SECONDS"; kill "$step"; } &' USR2
  trap 'interrupted=1; told="told to stop"' TERM
  while interrupted="" && status=0 && { wait "$step" || status=$?; } && [ -n "$interrupted" ]; do :; done
  trap - USR2 TERM
  case "$status" in
    0) return ;;
    2 | 65) say "gave up: the error above must be fixed first"; exit "$status" ;;
    75) told="${told:-told to stop}" ;;
  esac
  requeue "$status" "${told:-failed}"
}

# requeue STATUS WHY: go on later under the same job id and log, unless that is of no use.
requeue() {
  local log reason
  log="$(readlink "/proc/$$/fd/1")"
  # Cancelled, or requeued by someone else: nothing to add.
  [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING ] || exit "$1"
  say "$2, exit code $1, at $(progress)"
  if [ "$(grep -aE "^=== .* job $SLURM_JOB_ID: .*, exit code [0-9]+, at " "$log" | tail -n "$TRIES" |
    grep -acF ", at $(progress)")" -ge "$TRIES" ]; then
    reason="$(grep -aE '(Error|Exception): |^error: ' "$log" | tail -n 1)" || true
    say "gave up: ended $TRIES times at $(progress). ${reason:-The reason stands above.}"
  else
    say "asks to be requeued" # said before: Slurm ends this script as soon as it requeues the job
    if scontrol requeue "$SLURM_JOB_ID"; then exit 0; fi
    say "not requeued, since this cluster forbids it: submit the same command again, which resumes"
  fi
  exit "$1"
}

# progress: what the folder holds, so that two ends without anything new between them look the same.
progress() {
  local checkpoints=("$FOLDER"/checkpoints/step-*)
  if [ -d "$FOLDER/checkpoints" ]; then
    echo "${checkpoints[-1]##*/}"
  else
    echo "$(find "$FOLDER" -type f 2>/dev/null | wc -l) files"
  fi
}

# pretrain DEFAULT_CONFIG ARGUMENT…: `deepspeed pretrain/main.py` on all nodes; see node.py.
pretrain() {
  check pretrain "$@"
  on_nodes "$NODES" python slurm/node.py "${ARGUMENTS[@]}"
  say "finished: $FOLDER/hf"
}
