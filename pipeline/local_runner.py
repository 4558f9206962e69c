"""The default runner: worker processes on this machine, one for each processor of this job.

Beam's in-process runner drives them. It waits forever for a worker process that has ended without
an answer (killed, or unable to start or to connect); here the first such worker ends the run.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from typing import Any

import joblib
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.pipeline import Pipeline
from apache_beam.portability import python_urns
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from google.protobuf import json_format, text_format

from pipeline.errors import WorkerLostError
from pipeline.worker import NO_CONNECTION


def processors() -> int:
    """Processors of this job: by affinity, cgroup and Slurm, not those of the machine."""
    return min(joblib.cpu_count(), int(os.environ.get("SLURM_CPUS_PER_TASK", sys.maxsize)))


class LocalRunner(FnApiRunner):
    """Beam's in-process runner with worker processes that may end early."""

    def __init__(self) -> None:
        # Python's start would answer Ctrl-C with a traceback; the worker allows it again.
        command = f"trap '' INT; exec {shlex.quote(sys.executable)} -m pipeline.worker"
        super().__init__(SubprocessSDKEnvironment.from_command_string(command))

    def run_pipeline(self, pipeline: Pipeline, options: PipelineOptions) -> Any:
        """Run to the end, on `--direct_num_workers` processes (0: `processors()`).

        Raises:
            WorkerLostError: a worker process ended before the run did.
            KeyboardInterrupt: it was interrupted, and so was this process or will be.
        """
        workers = options.view_as(DirectOptions)
        workers.direct_num_workers = workers.direct_num_workers or processors()
        processes = _Processes()
        WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(processes.add)
        # Beam's threads print a traceback each when a worker has died. After Ctrl-C they may do so
        # until this process ends, so the hook is given back only if there was no such end.
        hook = threading.excepthook
        others = set(threading.enumerate())
        threading.excepthook = lambda thrown: hook(thrown) if thrown.thread in others else None
        try:
            result = super().run_pipeline(pipeline, options)
        except Exception as error:
            if processes.lost is None:
                threading.excepthook = hook
                raise
            if processes.lost == -signal.SIGINT:
                raise KeyboardInterrupt from error
            raise WorkerLostError(_reason(processes.lost)) from error
        finally:
            processes.over.set()
        threading.excepthook = hook
        return result


def _reason(exit_code: int) -> str:
    again = "Run the same command again: it continues from what is finished"
    if exit_code == NO_CONNECTION:
        return (
            "a worker process couldn't connect to this process on localhost in 60 s: allow local "
            f"connections (firewall, network namespace, ulimit). {again}"
        )
    if exit_code < 0:
        return (
            f"a worker process was killed (signal {-exit_code}, mostly for lack of memory). "
            f"{again}; fewer --direct_num_workers or a smaller chunk_bytes take less memory"
        )
    return f"a worker process ended with exit code {exit_code}; its reason is above. {again}"


class _Processes:
    """The worker processes of one run."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.lost: int | None = None  # exit code of the first that ended early
        self._handlers: list[_LocalWorker] = []
        self._lock = threading.Lock()

    def add(self, *arguments: Any) -> WorkerHandler:
        """A new worker, as Beam asks for it."""
        handler = _LocalWorker(self, *arguments)
        self._handlers.append(handler)
        return handler

    def has_ended(self, exit_code: int) -> None:
        """End the whole run unless this is how a worker ends after its last work."""
        with self._lock:
            if exit_code == 0 or self.lost is not None:
                return
            self.lost = exit_code
        while True:  # Beam may start another worker, or ask one for something, meanwhile
            for handler in tuple(self._handlers):
                handler.give_up()
            if self.over.wait(0.2):
                return


class _LocalWorker(GrpcWorkerHandler):
    """One worker process, seen from the runner."""

    def __init__(self, processes: _Processes, command: bytes, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._processes = processes
        self._command = command.decode()
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False

    def start_worker(self) -> None:
        """Start the process."""
        control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
        options = self.provision_info.provision_info.pipeline_options
        environment = {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "PIPELINE_OPTIONS": json_format.MessageToJson(options),
            "WORKER_ID": self.worker_id,
        }
        process = subprocess.Popen(self._command, shell=True, env=os.environ | environment)
        self._process = process
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        exit_code = process.wait()
        if not self._given_up:
            self._processes.has_ended(exit_code)

    def stop_worker(self) -> None:
        """Wait for the process, which ends when its connection is closed; at an error, kill it.

        Nobody waits for its work then, and a process that hadn't connected yet would wait for ever.
        """
        if self._process:
            if sys.exc_info()[0] is not None:
                self._given_up = True
                self._process.kill()
            self._process.wait()

    def give_up(self) -> None:
        """Kill the process, and raise in all threads that wait for it."""
        if self._process and not self._given_up:
            self._given_up = True
            self._process.kill()
            with contextlib.suppress(Exception):  # that the connection is lost is known
                self.data_conn.close()
        with contextlib.suppress(RuntimeError):  # a request came meanwhile; the next call has it
            self.control_conn.abort(ConnectionError("a worker process has ended"))
