"""Runners to test on: Beam's options, while what they need is up.

Clusters of Flink and Spark need Beam's job-server jar: BEAM_FLINK_JOB_SERVER_JAR and
BEAM_SPARK_JOB_SERVER_JAR, or one in ~/.apache_beam/cache/jars; and the cluster's own programs in
FLINK_HOME and SPARK_HOME. Their workers are pools outside the cluster, as in production.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import psutil
import pytest

ROOT = Path(__file__).parents[2]


@contextmanager
def processes(_: Path) -> Iterator[list[str]]:
    """Worker processes of this machine: the default."""
    yield ["--direct_num_workers=2"]


@contextmanager
def threads(_: Path) -> Iterator[list[str]]:
    """Workers that are threads of this process, as several slots of one Flink manager."""
    mode = "--direct_running_mode=multi_threading"
    yield ["--runner=FnApiRunner", mode, "--direct_num_workers=4"]


@contextmanager
def twice(_: Path) -> Iterator[list[str]]:
    """Every bundle runs twice, as after a lost answer."""
    yield ["--direct_num_workers=2", "--direct_runner_bundle_repeat=1"]


@contextmanager
def loopback(_: Path) -> Iterator[list[str]]:
    """A job server in a process of its own, whose workers are threads of this one."""
    port = free_port()
    module = "apache_beam.runners.portability.local_job_service_main"
    with process([sys.executable, "-m", module, f"--port={port}"], port):
        endpoint = f"--job_endpoint=localhost:{port}"
        yield ["--runner=PortableRunner", endpoint, "--environment_type=LOOPBACK"]


@contextmanager
def pools(_: Path) -> Iterator[list[str]]:
    """Two pools of worker processes that know nothing of this process but its address."""
    from apache_beam.portability import common_urns
    from apache_beam.portability.api import beam_runner_api_pb2
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.portability.fn_api_runner import worker_handlers as handlers
    from apache_beam.transforms.environments import ExternalEnvironment

    with ExitStack() as stack:
        addresses = [stack.enter_context(worker_pool()) for _ in range(2)]
        next_address = itertools.cycle(addresses)

        def handler(payload: Any, *arguments: Any) -> handlers.WorkerHandler:
            payload.endpoint.url = next(next_address)
            return handlers.ExternalWorkerHandler(payload, *arguments)

        known = handlers.WorkerHandler._registered_environments
        external = (handler, beam_runner_api_pb2.ExternalPayload)
        stack.enter_context(
            mock.patch.dict(known, {common_urns.environments.EXTERNAL.urn: external})
        )
        runner = SimpleNamespace(Runner=lambda: FnApiRunner(ExternalEnvironment(addresses[0])))
        stack.enter_context(mock.patch.dict(sys.modules, {"worker_pools": runner}))
        yield ["--runner=worker_pools.Runner", "--direct_num_workers=2"]


@contextmanager
def dask(_: Path) -> Iterator[list[str]]:
    """A Dask cluster of two worker processes with two threads each."""
    distributed = pytest.importorskip("distributed", reason="needs the extra `dask`")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None
    ) as cluster:
        runner = "apache_beam.runners.dask.dask_runner.DaskRunner"
        yield [f"--runner={runner}", f"--dask_client_address={cluster.scheduler_address}"]
        while client := distributed.client._get_global_client():
            client.close()  # the runner leaves one open for each graph


@contextmanager
def flink(folder: Path) -> Iterator[list[str]]:
    """A Flink cluster of one task manager with two slots: two threads of one worker process."""
    jar = job_server_jar("flink")
    home = program_folder("FLINK_HOME")
    version = re.findall(r"flink-(\d+\.\d+)-job-server", jar.name)
    if not version:
        pytest.skip(f"{jar}: no Flink version in its name (flink-2.2-job-server)")
    port = free_port()
    environment = dict(os.environ, FLINK_HOME=str(home))
    for name in ("conf", "log", "pid"):
        environment[f"FLINK_{name.upper()}_DIR"] = str(folder / name)
    shutil.copytree(home / "conf", folder / "conf")
    with (folder / "conf/config.yaml").open("a") as settings:
        settings.write(
            f"\ntaskmanager.numberOfTaskSlots: 2\nrest.port: {port}\n"
            f"jobmanager.rpc.port: {free_port()}\n"
            "taskmanager.memory.jvm-metaspace.size: 512m\n"
        )
    managers = [["bash", str(home / f"bin/{name}manager.sh")] for name in ("job", "task")]
    with ExitStack() as stack:
        for manager in managers:
            stack.callback(subprocess.run, [*manager, "stop"], env=environment, check=True)
            subprocess.run([*manager, "start"], env=environment, check=True)
        wait_for(port)
        pool = stack.enter_context(worker_pool())
        # with side inputs, Flink 1 may wait for itself unless a stage ends before the next begins
        forced = ["--executionModeForBatch=BATCH_FORCED"] if version[0].startswith("1.") else []
        yield [
            *("--runner=FlinkRunner", f"--flink_version={version[0]}", "--parallelism=2"),
            *(f"--flink_master=localhost:{port}", f"--flink_job_server_jar={jar}", *forced),
            *("--environment_type=EXTERNAL", f"--environment_config={pool}"),
            "--environment_cache_millis=60000",
        ]


@contextmanager
def spark(_: Path) -> Iterator[list[str]]:
    """A Spark cluster of two workers with one core each."""
    jar = job_server_jar("spark")
    start = [str(program_folder("SPARK_HOME") / "bin/spark-class")]
    port = free_port()
    url = f"spark://127.0.0.1:{port}"
    master = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port)]
    worker = ["org.apache.spark.deploy.worker.Worker", "--cores", "1", "--memory", "2g", url]
    with ExitStack() as stack:
        stack.enter_context(process([*start, *master, "--webui-port", str(free_port())], port))
        for _ in range(2):
            stack.enter_context(process([*start, *worker, "--webui-port", str(free_port())]))
        pool = stack.enter_context(worker_pool())
        yield [
            *("--runner=SparkRunner", f"--spark_master_url={url}"),
            f"--spark_job_server_jar={jar}",
            "--job_server_jvm_properties=-Dspark.default.parallelism=16",
            *("--environment_type=EXTERNAL", f"--environment_config={pool}"),
        ]


OPTIONS: dict[str, Callable[[Path], AbstractContextManager[list[str]]]] = {
    runner.__name__: runner
    for runner in (processes, threads, twice, loopback, pools, dask, flink, spark)
}


@contextmanager
def worker_pool() -> Iterator[str]:
    """The address of a pool, Beam's worker side on a node of a cluster."""
    port = free_port()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it starts `python`
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    module = "apache_beam.runners.worker.worker_pool_main"
    command = [sys.executable, "-m", module, f"--service_port={port}"]
    with process(command, port, environment):
        yield f"localhost:{port}"


@contextmanager
def process(
    command: list[str], port: int | None = None, environment: dict[str, str] | None = None
) -> Iterator[None]:
    """A process that listens on `port`, until it and its children are killed."""
    started = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    try:
        if port:
            wait_for(port)
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(started.pid).children(recursive=True)
            started.kill()
            for child in family:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        started.wait()


def wait_for(port: int) -> None:
    """Return when something listens."""
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"nothing listens on port {port} after a minute")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def job_server_jar(engine: str) -> Path:
    """Beam's job server for an engine; skips the test where there is none."""
    variable = f"BEAM_{engine.upper()}_JOB_SERVER_JAR"
    cached = Path.home().glob(f".apache_beam/cache/jars/*{engine}*job-server*.jar")
    found = [Path(os.environ[variable])] if variable in os.environ else sorted(cached)
    if not found:
        pytest.skip(f"no job-server jar: {variable} isn't set, and ~/.apache_beam has none")
    return found[-1]


def program_folder(variable: str) -> Path:
    """The folder that a variable names; skips the test where it isn't set."""
    if variable not in os.environ:
        pytest.skip(f"{variable} isn't set")
    return Path(os.environ[variable])
