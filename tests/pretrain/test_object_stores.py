"""Data and checkpoints on a real S3 server: several processes, kill -9, a server that goes away."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fsspec
import pytest

from benchmarks.tiny_run import ROOT, Run, write_random_folder
from pretrain.fault_tolerance.run_folder import open_checkpoint
from tests.s3 import Bucket

SHARDS, SEQUENCES = 8, 48  # training

# Notes what is fetched, and waits where a checkpoint is to become complete if it is told which.
PRELUDE = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from pretrain import remote
download, write = remote.ObjectStore.download, remote.ObjectStore.write

def noted_download(self, name, file):
    with open({notes!r}, "a") as notes:
        notes.write(name + "\\n")
    download(self, name, file)

def late_write(self, name, content):
    if name == "checkpoints/" + os.environ.get("TEST_STOPS_AT", "") + "/state.json":
        Path({notes!r}).write_text("stopped")
        time.sleep(600)
    write(self, name, content)

remote.ObjectStore.download = noted_download
remote.ObjectStore.write = late_write
"""
TRAINING = """
from pretrain.main import end_process, run_from_command_line
end_process(run_from_command_line(sys.argv[1:]))
"""
READING = """
import hashlib
from itertools import islice
from pretrain.batches import Batches
from pretrain.config import DataConfig
from pretrain.data import ShardFolder
from pretrain.masking import MaskingConfig

path, cache_dir, rank = sys.argv[1:]
data = ShardFolder.from_config(
    DataConfig(path=path, cache_dir=cache_dir, shuffle_shards=2, cache_gb=1)
)
batches = Batches(
    data, seed=0, global_batch_size=16, micro_batch_size=4, shuffle_shards=2,
    rank=int(rank), num_ranks=2,
)
digest = hashlib.sha256()
for step in islice(batches.steps(0, MaskingConfig(insert_layer=1)), 40):  # over an epoch's end
    for batch in step:
        for array in batch:
            digest.update(array.tobytes())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "data"
    sizes = {"shards": SHARDS, "sequences": SEQUENCES, "seq_len": 32}
    return write_random_folder(folder, **sizes, vocab_size=300, block=16)


@pytest.fixture
def url(shards: Path, s3: Bucket) -> str:
    """The data set, on the server."""
    filesystem, root = fsspec.url_to_fs(f"{s3.url}/data")
    for file in shards.iterdir():
        filesystem.put_file(str(file), f"{root}/{file.name}")
    return f"{s3.url}/data"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def script(folder: Path, notes: Path, body: str) -> Path:
    file = folder / "program.py"
    file.write_text(PRELUDE.format(root=str(ROOT), notes=str(notes)) + body)
    return file


def fetched_shards(notes: Path) -> Counter[str]:
    return Counter(name for name in notes.read_text().split() if name.startswith("train-"))


def test_two_processes_read_what_the_folder_holds_and_fetch_each_shard_once(
    shards: Path, url: str, tmp_path: Path, notes: Path
) -> None:
    program = script(tmp_path, notes, READING)

    def digests(path: str) -> list[str]:
        processes = [
            subprocess.Popen(
                [sys.executable, program, path, tmp_path / "cache", str(rank)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        return [process.communicate(timeout=120)[0] for process in processes]

    near = digests(str(shards))
    assert digests(url) == near
    assert all(near)
    assert set(fetched_shards(notes).values()) == {1}
    assert len(fetched_shards(notes)) == SHARDS


@pytest.mark.long
def test_training_from_a_url_is_training_from_the_folder(
    shards: Path, url: str, tmp_path: Path, notes: Path
) -> None:
    window = ("--data.shuffle_shards", 2, "--budget.steps", 20)  # of the 32 of an epoch
    near = Run(shards, tmp_path / "near", *window)
    near.go()
    far = Run(Path("unused"), tmp_path / "far", *window, "--data.path", url)
    far.overrides += ["--data.cache_dir", str(tmp_path / "cache")]
    far.go(script=[str(script(tmp_path, notes, TRAINING))])
    assert far.losses() == near.losses()
    fetched = fetched_shards(notes)
    assert len(fetched) >= SHARDS - 1
    # The first one's tokens are counted at the start: it may have gone before its turn comes.
    assert fetched.pop(f"train-00000-of-{SHARDS:05}.tar") <= 2
    assert set(fetched.values()) == {1}


@pytest.mark.long
def test_kill_9_amid_an_upload_loses_nothing_and_another_node_resumes(
    shards: Path, s3: Bucket, tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Run(shards, tmp_path / "whole", "--budget.steps", 16)
    whole.go()

    upload = ("--budget.steps", 16, "--run.upload_to", f"{s3.url}/run")
    first = Run(shards, tmp_path / "first-node", *upload)
    monkeypatch.setenv("TEST_STOPS_AT", "step-00000010")
    first.start(script=[str(script(tmp_path, notes, TRAINING))])
    first.wait_until(notes.exists, "the upload of step 10")
    for process in first.rank_processes():
        process.send_signal(signal.SIGKILL)
    first.stop()
    filesystem, root = fsspec.url_to_fs(f"{s3.url}/run/checkpoints")
    objects = filesystem.find(root)
    assert f"{root}/step-00000005/state.json" in objects
    assert any("step-00000010/part" in path for path in objects)
    assert f"{root}/step-00000010/state.json" not in objects
    monkeypatch.delenv("TEST_STOPS_AT")

    second = Run(shards, tmp_path / "second-node", *upload)
    assert "step 5" in second.go()
    losses = whole.losses()
    assert {step: loss for step, loss in second.losses().items() if step > 5} == {
        step: loss for step, loss in losses.items() if step > 5
    }
    filesystem.invalidate_cache()
    complete = [path for path in filesystem.find(root) if path.endswith("state.json")]
    assert complete == [f"{root}/step-{step:08d}/state.json" for step in (15, 16)]
    theirs, ours = open_checkpoint(whole.folder), open_checkpoint(second.folder)
    for name, weight in theirs.weights().items():
        assert ours.weights()[name].equal(weight)


@pytest.mark.long
def test_a_server_that_comes_back_costs_time_and_one_that_does_not_is_named(
    shards: Path, url: str, s3: Bucket, tmp_path: Path
) -> None:
    window = ("--data.shuffle_shards", 1, "--budget.steps", 60)  # nearly two epochs
    near = Run(shards, tmp_path / "near", *window)
    near.go()
    far = Run(Path("unused"), tmp_path / "far", *window, "--data.path", url)
    far.overrides += ["--data.cache_dir", str(tmp_path / "cache")]
    try:
        far.start()
        far.wait_for_step(3)
        s3.server.kill()
        time.sleep(5)
        s3.server.start()
        assert far.wait() == 0
        assert far.losses() == near.losses()
        assert "trying again in" in far.output

        gone = Run(Path("unused"), tmp_path / "gone", *far.overrides, "--data.retry_seconds", 3)
        gone.overrides[gone.overrides.index(str(tmp_path / "cache"))] = str(tmp_path / "other")
        gone.start()
        gone.wait_for_step(3)
        s3.server.kill()
        assert gone.wait() == 69
        assert f"data.path: {url}/train-000" in gone.output.split("error: ")[-1]
        assert "Traceback" not in gone.output
    finally:
        far.stop()
        s3.server.start()
