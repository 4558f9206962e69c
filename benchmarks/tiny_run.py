"""A pretraining run of seconds that the fault benchmarks and their tests start, stop and compare.

Rows are drawn from a Markov chain, so that there is something to learn; runs are real processes
under DeepSpeed's launcher.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import yaml

ROOT = Path(__file__).parents[1]
VOCAB, SEQ_LEN, BLOCK = 300, 32, 64
CONFIG: dict[str, dict[str, Any]] = {
    "data": {"global_batch_size": 12, "micro_batch_size": 2},
    "masking": {"insert_layer": 1},
    "model": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": SEQ_LEN + 2,
        "dropout": 0.1,
        "initializer_range": None,
    },
    "optimizer": {"lr": 3e-3, "gradient_clipping": 1.0},
    "budget": {"steps": 40},
    "run": {
        "log_every": 1,
        "eval_every": 1000,
        "eval_sequences": 24,
        "precision": "fp32",
        "save_every": 5,
        "rank_seconds": 15,
    },
}


def free_port() -> int:
    """On the loopback, until somebody takes it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def write_data(folder: Path) -> Path:
    """Two shards of 256 training rows and one of 48 validation rows; returns `folder`."""
    draw = np.random.default_rng(0)
    follows = draw.integers(4, VOCAB - 1, size=(VOCAB, 2))
    rows = {
        split: [markov_sequences(draw, count, SEQ_LEN, follows) for count in counts]
        for split, counts in (("train", (256, 256)), ("valid", (48,)))
    }
    return write_folder(folder, rows, VOCAB, BLOCK)


def markov_sequences(
    draw: np.random.Generator, count: int, seq_len: int, follows: np.ndarray
) -> np.ndarray:
    """[count, seq_len] ids between <s> and </s>; `follows` [V, n] are what may follow a token."""
    vocab_size, successors = follows.shape
    rows = np.zeros((count, seq_len), dtype=np.uint16)
    rows[:, 1] = draw.integers(4, vocab_size - 1, size=count)
    for position in range(2, seq_len - 1):
        rows[:, position] = follows[rows[:, position - 1], draw.integers(successors, size=count)]
    rows[:, -1] = 2
    return rows


def write_random_folder(
    folder: Path, *, shards: int, sequences: int, seq_len: int, vocab_size: int, block: int
) -> Path:
    """A data set of `shards` training shards and one for validation, of `sequences` each."""
    draw = np.random.default_rng(0)
    follows = draw.integers(4, vocab_size - 1, size=(vocab_size, 2))
    splits = {
        split: [markov_sequences(draw, sequences, seq_len, follows) for _ in range(count)]
        for split, count in (("train", shards), ("valid", 1))
    }
    return write_folder(folder, splits, vocab_size, block)


def write_folder(
    folder: Path, splits: Mapping[str, Sequence[np.ndarray]], vocab_size: int, block_sequences: int
) -> Path:
    """A finished data set with one shard for each array [N, T] of each split; returns `folder`."""
    folder.mkdir(parents=True)
    vocab = {f"w{index}": index for index in range(vocab_size)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocab}}))
    entries = {
        split: [
            write_shard(
                folder / f"{split}-{number:05d}-of-{len(shards):05d}.tar", rows, block_sequences
            )
            for number, rows in enumerate(shards)
        ]
        for split, shards in splits.items()
    }
    manifest = {
        "format": "latemask-shards",
        "version": 1,
        "seq_len": splits["train"][0].shape[1],
        "dtype": "uint16",
        "vocab_size": vocab_size,
        "tokenizer_sha256": hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(),
        "splits": {
            split: {
                "shards": shards,
                "sequences": sum(shard["sequences"] for shard in shards),
                "tokens": sum(shard["tokens"] for shard in shards),
            }
            for split, shards in entries.items()
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_shard(file: Path, rows: np.ndarray, block_sequences: int) -> dict[str, Any]:
    """One tar of contract A (docs/formats.md); returns its entry in the manifest."""
    blocks = []
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, start in enumerate(range(0, len(rows), block_sequences)):
            block, buffer = rows[start : start + block_sequences], io.BytesIO()
            np.save(buffer, block)
            member = tarfile.TarInfo(f"{number:08d}.tokens.npy")
            member.size = buffer.tell()
            begin = tar.offset + tarfile.BLOCKSIZE + member.size - block.nbytes
            tar.addfile(member, io.BytesIO(buffer.getvalue()))
            blocks.append({"key": f"{number:08d}", "offset": begin, "sequences": len(block)})
    content = file.read_bytes()
    return {
        "name": file.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sequences": len(rows),
        "tokens": rows.size,
        "blocks": blocks,
    }


class Run:
    """One run folder and the processes that write it."""

    def __init__(
        self,
        data: Path,
        folder: Path,
        *overrides: object,
        ranks: int = 2,
        launcher: Literal["deepspeed", "torchrun"] = "deepspeed",
    ) -> None:
        """`overrides` are `--group.field value` of every start."""
        self.folder, self.ranks, self.launcher = folder, ranks, launcher
        self.overrides = [str(word) for word in overrides]
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.config = folder.parent / f"{folder.name}.yaml"
        self.config.write_text(
            yaml.safe_dump(CONFIG | {"data": CONFIG["data"] | {"path": str(data)}})
        )
        self.log = folder.parent / f"{folder.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._mark = ""

    def start(
        self,
        *more: object,
        script: Sequence[str] = ("pretrain/main.py",),
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """The launcher and its ranks, in a session of their own.

        Args:
            more: `--group.field value` of this start.
            script: what the ranks run.
            prefix: a command that is given the launcher's as its arguments.
            environment: variables besides this process's.
        """
        words = ["--config", self.config, "--run.output_dir", self.folder, *self.overrides, *more]
        self._mark = uuid.uuid4().hex
        own = {
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LATEMASK_TEST_RUN": self._mark,
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*prefix, *self._launch(), *script, *map(str, words)],
                cwd=ROOT,
                env=os.environ | own | dict(environment or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _launch(self) -> list[str]:
        if self.launcher == "torchrun":  # a module, which needs no script beside the interpreter
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            return [*launch, "--nproc_per_node", str(self.ranks)]
        launch = [str(Path(sys.executable).with_name("deepspeed"))]
        return [*launch, "--num_accelerators", str(self.ranks)]

    @property
    def output(self) -> str:
        """What the last start has said so far."""
        return self.log.read_text()

    def wait(self, seconds: float = 240) -> int:
        """The launcher's exit code."""
        assert self.process is not None
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise RuntimeError(f"not over within {seconds} s:\n{self.output[-5000:]}") from None
        return self.process.returncode

    def go(self, *more: object, code: int = 0, **options: Any) -> str:
        """Start, wait, and insist on the exit code; returns what was said."""
        self.start(*more, **options)
        if (found := self.wait()) != code:
            raise RuntimeError(f"exit code {found} instead of {code}:\n{self.output[-5000:]}")
        return self.output

    def stop(self) -> None:
        """Kill whatever of the last start is left."""
        while left := self.processes():
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=1)
        if self.process is not None:
            self.process.wait()

    def processes(self) -> list[psutil.Process]:
        """All that the last start has begun and that have not ended, whoever their parent is."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("LATEMASK_TEST_RUN") == self._mark:
                    found.append(process)
        return found

    def rank_processes(self) -> list[psutil.Process]:
        """The ranks, in order."""
        found: dict[int, psutil.Process] = {}
        for process in self.processes():
            with suppress(psutil.Error):
                rank = process.environ().get("RANK")
                if rank is not None and "pretrain/main.py" in " ".join(process.cmdline()):
                    found.setdefault(int(rank), process)  # not one that it has begun itself
        return [found[rank] for rank in sorted(found)]

    def launchers(self) -> list[psutil.Process]:
        """`deepspeed` and the processes between it and the ranks."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if "RANK" not in process.environ():
                    found.append(process)
        return found

    def wait_for_step(self, step: int) -> None:
        """Until the log has this step."""
        self.wait_until(lambda: max(self.losses(), default=0) >= step, f"step {step}")

    def wait_until(self, arrived: Callable[[], object], what: str, seconds: float = 180) -> None:
        """Until `arrived()`; RuntimeError if the run ends before, or in `seconds` it is not."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while not arrived():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{what} never came:\n{self.output[-5000:]}")
            time.sleep(0.01)

    def losses(self) -> dict[int, float]:
        """Training loss by step."""
        file = self.folder / "metrics.jsonl"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        records = [json.loads(line) for line in lines]
        return {r["step"]: r["train/loss"] for r in records if "train/loss" in r}
