"""OUTPUT in an object store: the same bytes as on a disk, whatever is killed and when."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline import provenance
from pipeline.__main__ import main
from pipeline.config import Config, NearDuplicates, Packing, Shards
from pipeline.report.inspect import inspect
from pipeline.report.verify import problems
from pipeline.run import run
from pipeline.store import lock as locks
from pipeline.store import work
from pipeline.store.folder import Folder
from tests.s3 import Bucket, Server

FULL: dict[str, Any] = {
    "chunk_bytes": 15_000,
    "near_duplicates": NearDuplicates(threshold=0.7),
    "packing": Packing(whole_sentences=True, more_seq_lens=[64]),
}
# A run whose lease expires in seconds: what the tests kill isn't waited for.
RUN = (
    "import sys; from pipeline.store import lock; from pipeline.__main__ import main;"
    "lock.BEAT_SECONDS = 0.5; lock.EXPIRY_SECONDS = 8.0; sys.exit(main(sys.argv[1:]))"
)


def _run(config: Config, overwrite: bool = False) -> dict[str, Any]:
    return run(config, ["--direct_num_workers=1"], overwrite, lambda *_: None)


def _hashes(folder: Folder) -> dict[str, str]:
    """SHA-256 of every finished file; of a manifest without what tells how it came about."""
    found = {}
    for name in folder.list(deep=True):
        if name.startswith(".work/") or name.endswith(".tmp"):
            continue
        content = folder.read(name)
        if name.endswith("manifest.json"):
            content = json.dumps(provenance.without(json.loads(content))).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture(scope="module")
def on_disk(
    config_for: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Hashes of what a run makes in a folder of this machine."""
    output = tmp_path_factory.mktemp("local") / "data"
    _run(config_for(output, **FULL))
    return _hashes(Folder(str(output)))


@pytest.fixture
def config(config_for: Callable[..., Config], s3: Bucket) -> Config:
    return config_for(f"{s3.url}/corpora/data", **FULL)


def _command(config: Config, path: Path) -> list[str]:
    path.write_text(json.dumps({"output": config.output, **config.content()}))
    options = ["--config", str(path), "--direct_num_workers=2"]
    return [sys.executable, "-c", RUN, *options]


def test_a_store_gets_the_bytes_of_a_disk(
    config: Config, on_disk: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(config.output)
    _run(config)
    assert _hashes(folder) == on_disk
    assert problems(folder) == []
    report = inspect(folder, tmp_path / "picture.png", sequences=2)
    assert report.startswith(f"{config.output}: sequences of 32 tokens")
    began = time.monotonic()
    run(config, ["--runner=none"], False, lambda *_: None)  # finished: no runner is asked
    assert time.monotonic() - began < 5

    folder.delete("train-00001-of-00003.tar")
    assert main(["verify", config.output]) == 1
    assert "train-00001-of-00003.tar is missing" in capsys.readouterr().err
    _run(config)
    assert _hashes(folder) == on_disk
    assert main(["verify", config.output]) == 0


@pytest.mark.long
def test_overwriting_removes_the_manifest_first_and_is_continued(
    config: Config, config_for: Callable[..., Config], tmp_path: Path
) -> None:
    folder = Folder(config.output)
    _run(config)
    folder.write("notes.txt", b"somebody else's")
    other = config_for(config.output, shards=Shards(train=2, block_sequences=16))
    command = [*_command(other, tmp_path / "config.json"), "--overwrite"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while folder.list(".work/chunks"):  # of the data that is removed
        assert process.poll() is None
        time.sleep(0.1)
    _wait_for(folder, ".work/chunks")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not folder.exists("manifest.json")
    assert not folder.exists("seq-64/manifest.json")
    begun = folder.version(".work/plan.json")
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert folder.version(".work/plan.json") == begun
    assert problems(folder) == []
    assert folder.exists("notes.txt")
    assert not folder.list("seq-64")
    assert [name for name in folder.list() if name.endswith(".tar")] == [
        "train-00000-of-00002.tar",
        "train-00001-of-00002.tar",
        "valid-00000-of-00001.tar",
    ]


def _wait_for(folder: Folder, under: str) -> None:
    for _ in range(3000):
        if folder.list(under):
            return
        time.sleep(0.1)
    pytest.fail(f"nothing in {under} after minutes")


def _check_receipts(folder: Folder) -> None:
    """Every file that is certified is there, and is what its receipt says."""
    for name in folder.list(".work", deep=True):
        if name.endswith(".receipt.json"):
            file = name.removesuffix(".receipt.json").removeprefix(".work/shards/")
            receipt = json.loads(folder.read(name))
            assert hashlib.sha256(folder.read(file)).hexdigest() == receipt["sha256"]


@pytest.mark.long
def test_a_killed_run_is_taken_over_and_ends_in_the_same_bytes(
    config: Config, on_disk: dict[str, str], tmp_path: Path
) -> None:
    folder = Folder(config.output)
    command = _command(config, tmp_path / "config.json")
    for under in (".work/lock", ".work/documents", ".work/tokens", ".work/shards"):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
        _wait_for(folder, under)
        if under == ".work/lock":  # it has so much to do that a second run meets it
            second = subprocess.run(command, capture_output=True, text=True)
            assert second.returncode == 2
            assert "another run is writing this folder (process" in second.stderr
            assert "Traceback" not in second.stderr
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not folder.exists("manifest.json")
        _check_receipts(folder)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert _hashes(folder) == on_disk
    assert problems(folder) == []


@pytest.mark.long
def test_a_killed_worker_ends_the_run_and_the_next_goes_on(
    config: Config, on_disk: dict[str, str], tmp_path: Path
) -> None:
    folder = Folder(config.output)
    command = _command(config, tmp_path / "config.json")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for(folder, ".work/chunks")
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "pipeline.worker" in child.cmdline()
    ]
    workers[0].send_signal(signal.SIGKILL)
    _, shown = process.communicate(timeout=300)
    assert process.returncode == 69
    assert "a worker process was killed (signal 9" in shown
    assert "Traceback" not in shown
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert _hashes(folder) == on_disk


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that a test may kill."""
    pytest.importorskip("s3fs", reason="needs the extra `s3`")
    server = Server(tmp_path / "server")
    server.start()
    server.announce(monkeypatch)
    yield server
    server.kill()


@pytest.mark.long
def test_a_killed_server_is_told_and_loses_nothing(
    config_for: Callable[..., Config],
    own_server: Server,
    on_disk: dict[str, str],
    tmp_path: Path,
) -> None:
    config = config_for(f"{own_server.make_bucket('bucket')}/data", **FULL)
    folder = Folder(config.output)
    command = _command(config, tmp_path / "config.json")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for(folder, ".work/chunks")
    own_server.kill()
    _, shown = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "Traceback" not in shown, shown
    assert f"error: {config.output}" in shown
    own_server.start()
    _check_receipts(folder)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert _hashes(folder) == on_disk


@pytest.mark.parametrize(
    ("change", "output", "message"),
    [
        ({}, "s3://no-such-bucket-here/data", "see that the bucket exists"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, None, "can't be reached"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, None, "can't be reached"),
        ({}, "ftp://host/data", "can't be at ftp://"),
    ],
)
def test_a_store_that_cannot_be_written_is_one_line_before_any_work(
    config: Config,
    change: dict[str, str],
    output: str | None,
    message: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"output": output or config.output, **config.content()}))
    command = [sys.executable, "-m", "pipeline", "--config", str(path)]
    done = subprocess.run(command, env=os.environ | change, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {output or config.output}")
    assert message in line
    assert not (tmp_path / "ftp:").exists()


def test_files_of_somebody_else_stay(config: Config) -> None:
    folder = Folder(config.output)
    folder.write("thesis.tex", b"x")
    with pytest.raises(Exception, match=r"thesis\.tex"):
        _run(config, overwrite=True)
    assert folder.list(deep=True) == {"thesis.tex": 1}


def test_leases_are_longer_than_a_pause_of_a_machine() -> None:
    assert locks.EXPIRY_SECONDS >= 6 * locks.BEAT_SECONDS >= 30
    assert locks.LOCK.partition("/")[0] == work.WORK
