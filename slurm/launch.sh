# Sourced by the job scripts: where the project is, its environment, and the start of the ranks.
# Site settings (modules, another venv, network interface) belong into slurm/site.env, which git
# ignores; slurm/site.env.example lists them.

cd "${LATEMASK_HOME:-${SLURM_SUBMIT_DIR:?not inside a Slurm job: use sbatch}}"
[ -f pyproject.toml ] || { echo "error: $PWD is not the project: sbatch from its folder, or set LATEMASK_HOME" >&2; exit 2; }
[ -f slurm/site.env ] && . slurm/site.env
. "${LATEMASK_VENV:-.venv}/bin/activate"

# Node names need not resolve: ask Slurm for the first node's address.
first_node_address() {
  scontrol show node "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)" |
    sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p' | head -n 1
}

# launch CONFIG [overrides]: `deepspeed pretrain/main.py` on every node of the allocation, no ssh.
launch() {
  local ranks_per_node address port hostfile
  ranks_per_node="${LATEMASK_RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}"
  address="${MASTER_ADDR:-$(first_node_address)}"
  port="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}"
  hostfile="$(mktemp "${TMPDIR:-/tmp}/latemask-hosts.XXXXXX")"
  scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/\$/ slots=$ranks_per_node/" >"$hostfile"
  srun --ntasks-per-node=1 --export=ALL,HOSTS="$(base64 -w0 "$hostfile")",ADDRESS="$address",PORT="$port" \
    bash -c '
      hosts="$(mktemp)"; base64 -d <<<"$HOSTS" >"$hosts"
      exec deepspeed --hostfile "$hosts" --no_ssh --node_rank "$SLURM_NODEID" \
        --master_addr "$ADDRESS" --master_port "$PORT" pretrain/main.py "$@"' _ --config "$@"
}
