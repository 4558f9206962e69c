"""A real Slurm on this machine: munged, slurmctld and four slurmd, as children of the tests.

No systemd, no cgroups: every daemon runs in the foreground, is ended by its own process id, and
whatever a job left behind (known by SLURM_CONF in its environment) goes with it.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CONFIG = """
ClusterName=test
FirstJobId={first}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
LaunchParameters=use_interactive_step
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
JobRequeue=1
KillWait=20
SlurmdTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,bf_interval=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
GresTypes=gpu
{nodes}
PartitionName=main Nodes=n[1-2] Default=YES State=UP GraceTime=30
PartitionName=urgent Nodes=n[1-2] State=UP PriorityTier=10
PartitionName=wide Nodes=n[1-4] State=UP
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    """Nodes n1 and n2 in the default partition, n3 and n4 besides in `wide`; 8 pretended GPUs."""

    nodes = ("n1", "n2", "n3", "n4")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")} | {
            "PATH": SEARCH_PATH,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "LATEMASK_VENV": sys.prefix,
            "OMP_NUM_THREADS": "1",
            "SHELL": "/bin/bash",  # what salloc's interactive step runs; CI may have none
        }
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        folder = self.folder
        (folder / "munge").mkdir()
        (folder / "munge/key").write_bytes(os.urandom(64))
        (folder / "munge/key").chmod(0o400)
        ports = free_ports(1 + len(self.nodes))
        host = socket.gethostname().partition(".")[0]
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            "CPUs=64 CoresPerSocket=64 Gres=gpu:8"
            for name, port in zip(self.nodes, ports[1:], strict=True)
        )
        (folder / "slurm.conf").write_text(
            CONFIG.format(host=host, port=ports[0], first=ports[1], folder=folder, nodes=nodes)
        )
        for number in range(8):
            (folder / f"gpu{number}").touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
        own = {name: folder / "munge" / name for name in ("key", "socket", "pid", "log", "seed")}
        flags = [f"--{name}-file={path}" for name, path in own.items() if name != "socket"]
        self._daemon("munged", "--foreground", "--force", f"--socket={own['socket']}", *flags)
        self._wait(lambda: own["socket"].exists(), "munged")
        self._daemon("slurmctld", "-D")
        for name in self.nodes:
            self.start_node(name)
        self._wait(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), "idle nodes")

    def _daemon(self, program: str, *arguments: str, name: str | None = None) -> None:
        path = shutil.which(program, path=SEARCH_PATH)
        self.daemons[name or program] = subprocess.Popen(
            [str(path), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start_node(self, name: str) -> None:
        self._daemon("slurmd", "-D", "-N", name, name=name)

    def kill_node(self, name: str) -> None:
        """What a power cut does: SIGKILL to the node's daemon and to all of its processes."""
        self.daemons[name].kill()
        self.daemons[name].wait()
        for process in self._processes(SLURMD_NODENAME=name):
            for victim in (process.parent(), process):
                if victim and (victim == process or victim.name().startswith("slurmstepd")):
                    victim.kill()

    def _processes(self, **variables: str) -> list[psutil.Process]:
        found = []
        wanted = variables | {"SLURM_CONF": self.environment["SLURM_CONF"]}
        for process in psutil.process_iter():
            try:
                if wanted.items() <= process.environ().items() and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def states(self) -> dict[str, str]:
        text = self.run("sinfo", "-h", "-p", "wide", "-N", "-o", "%N %t", check=False)
        return dict(re.findall(r"^(n\d) (\S+)$", text, flags=re.M))

    def run(self, *command: object, check: bool = True, **more: str) -> str:
        result = subprocess.run(
            [str(word) for word in command],
            cwd=ROOT,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check and result.returncode:
            pytest.fail(f"{command}: exit code {result.returncode}\n{result.stderr}")
        return result.stdout + result.stderr

    def submit(self, *arguments: object, **more: str) -> int:
        """sbatch, its log under this cluster's folder; the job's number."""
        output = f"--output={self.folder}/%j.log"
        return int(self.run("sbatch", "--parsable", output, *arguments, **more).split(";")[0])

    def job(self, job: int) -> dict[str, str]:
        """What `scontrol show job` says."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.partition("=")[::2] for word in words)

    def queued(self) -> set[str]:
        """The numbers of all jobs that wait, run or end."""
        return set(self.run("squeue", "--noheader", "--format=%i").split())

    def log(self, job: int) -> str:
        path = self.folder / f"{job}.log"
        return path.read_text() if path.exists() else ""

    def wait(self, job: int, *states: str, seconds: float = 120) -> dict[str, str]:
        """Until the job is in one of `states`; what `job` says then."""
        what = f"job {job} {' or '.join(states)}"
        self.wait_for(job, lambda: self.job(job)["JobState"] in states, what, seconds)
        return self.job(job)

    def wait_for(
        self, job: int, arrived: Callable[[], object], what: str, seconds: float = 120
    ) -> None:
        """Until `arrived()`; a failure shows the job and its log."""
        self._wait(arrived, what, seconds, job)

    def _wait(
        self, arrived: Callable[[], object], what: str, seconds: float = 20, job: int = 0
    ) -> None:
        deadline = time.monotonic() + seconds
        while not arrived():
            if time.monotonic() > deadline:
                found = self.job(job) if job else self.states()
                controller = self.folder / "slurmctld.log"
                log = self.log(job) or (controller.exists() and controller.read_text()) or "no log"
                pytest.fail(f"{what}: not within {seconds} s\n{found}\n{log[-5000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        self.run("scancel", "--user=root", check=False)
        deadline = time.monotonic() + 30
        while self.run("squeue", "-h", check=False).strip() and time.monotonic() < deadline:
            time.sleep(0.2)
        for daemon in reversed(self.daemons.values()):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process in self._processes():
            process.kill()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    missing = [name for name in PROGRAMS if not shutil.which(name, path=SEARCH_PATH)]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)} here; on Debian or Ubuntu: apt-get install "
            "--no-install-recommends slurmctld slurmd slurm-client munge"
        )
    if os.geteuid() != 0:
        pytest.skip("slurmd must be started by root")
    # Short, since sockets lie in it.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


# ------------------------------------------------------------------ inputs of the stages

WORDS = [*"abcdefghijkl", "the", "of", "array", "list", "value", "shape", "number", "file"]


def _text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline config over 300 documents of random words; it lacks nothing but time."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    documents = [{"id": str(n), "text": _text(draw, 120)} for n in range(300)]
    (folder / "text.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    config = {
        "output": str(folder / "data"),
        "seq_len": 32,
        "sources": [{"kind": "jsonl", "name": "words", "paths": [str(folder / "text.jsonl")]}],
        "split": {"valid": 0.2},
        "tokenizer": {"vocab_size": 300},
        "shards": {"train": 2, "valid": 1, "block_sequences": 64},
    }
    (folder / "corpus.yaml").write_text(yaml.safe_dump(config))
    return folder / "corpus.yaml"


@pytest.fixture(scope="session")
def data(cluster: Cluster, corpus: Path) -> Path:
    """The data folder, made by slurm/preprocess.sh on one node."""
    job = cluster.submit("--cpus-per-task=2", "slurm/preprocess.sh", "--config", corpus)
    assert cluster.wait(job, "COMPLETED", "FAILED")["JobState"] == "COMPLETED", cluster.log(job)
    return corpus.parent / "data"


@pytest.fixture(scope="session")
def recipe(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining config of seconds over `data`; it lacks only `run.output_dir`."""
    config = {
        "data": {
            "path": str(corpus.parent / "data"),
            "global_batch_size": 64,
            "micro_batch_size": 8,
        },
        "masking": {"insert_layer": 1},
        "model": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 34,
            "dropout": 0.1,
            "initializer_range": None,
        },
        "optimizer": {"lr": 3e-3, "gradient_clipping": 1.0, "warmup": 0.0},
        "budget": {"steps": 100000},
        "run": {
            "log_every": 1,
            "eval_every": 100000,
            "eval_sequences": 32,
            "precision": "fp32",
        },
    }
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SST-2 and RTE of 40 and 16 rows in GLUE's layout."""
    folder, draw = tmp_path_factory.mktemp("glue"), random.Random(1)
    for task, header in (
        ("SST-2", "sentence\tlabel"),
        ("RTE", "index\tsentence1\tsentence2\tlabel"),
    ):
        (folder / task).mkdir()
        for split, rows in (("train", 40), ("dev", 16)):
            lines = [header]
            for number in range(rows):
                first, second, label = _text(draw, 4), _text(draw, 4), number % 2
                entails = ("entailment", "not_entailment")[label]
                pair = f"{number}\t{first}\t{second}\t{entails}"
                lines.append(pair if task == "RTE" else f"{first}\t{label}")
            (folder / task / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder
