"""What each node of a preprocessing job over several nodes runs: its part of a Dask cluster.

Every node has one worker process a core; the first one the scheduler, too, and the pipeline. When
that ends, they all end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"


def main(arguments: Sequence[str]) -> int:
    """Work until the pipeline has ended; its exit code."""
    environment = os.environ
    host, port = environment["MASTER_ADDR"], environment["MASTER_PORT"]
    cores = environment.get("SLURM_CPUS_PER_TASK", str(len(os.sched_getaffinity(0))))
    # Beam's Dask runner, too, finds the scheduler by this.
    environment["DASK_SCHEDULER_ADDRESS"] = f"tcp://{host}:{port}"
    environment["DASK_LOGGING__DISTRIBUTED"] = "error"
    python = [sys.executable, "-m"]
    worker = [*python, "distributed.cli.dask_worker", environment["DASK_SCHEDULER_ADDRESS"]]
    worker += ["--nworkers", cores, "--nthreads", "1", "--no-dashboard"]
    if environment["SLURM_NODEID"] != "0":
        return subprocess.call(worker)
    scheduler = [*python, "distributed.cli.dask_scheduler", "--host", host, "--port", port]
    started = [subprocess.Popen(words) for words in ([*scheduler, "--no-dashboard"], worker)]
    from distributed import Client

    with Client() as client:
        client.wait_for_workers(int(cores) * int(environment["SLURM_STEP_NUM_NODES"]))
    code = subprocess.call([*python, "pipeline", *arguments, f"--runner={RUNNER}"])
    with Client() as client:
        client.shutdown()
    for process in started:
        process.wait()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
