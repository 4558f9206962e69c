"""What each node of a preprocessing job over several nodes runs: its part of a Dask cluster.

The first node holds the scheduler and runs the pipeline on it; every node has one worker process a
core. The end of the pipeline ends them all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from distributed import Client, LocalCluster

RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"


def main(arguments: Sequence[str]) -> int:
    """Work until the pipeline has ended; its exit code."""
    environment = os.environ
    host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    cores = int(environment.get("SLURM_CPUS_PER_TASK", len(os.sched_getaffinity(0))))
    scheduler = f"tcp://{host}:{port}"
    if environment["SLURM_NODEID"] != "0":
        program = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler]
        sizes = ["--nworkers", str(cores), "--nthreads", "1", "--no-dashboard"]
        os.execv(program[0], [*program, *sizes])
    with LocalCluster(
        host=host,
        scheduler_port=port,
        n_workers=cores,
        threads_per_worker=1,
        dashboard_address=None,
    ):
        with Client(scheduler) as client:
            client.wait_for_workers(cores * int(environment["SLURM_STEP_NUM_NODES"]))
        dask = [f"--runner={RUNNER}", f"--dask_client_address={scheduler}"]
        code = subprocess.call([sys.executable, "-m", "pipeline", *arguments, *dask])
        with Client(scheduler) as client:
            client.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
