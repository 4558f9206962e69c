"""A begun folder is resumed, a finished one replaced or left alone; files of others stay."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.config import Cleaning, Config, Shards, Source, Tokenizer
from pipeline.errors import PipelineError
from pipeline.report.verify import problems, verify
from pipeline.store import plans, work
from pipeline.store.folder import Folder
from pipeline.store.lock import lock
from tests.pipeline.folders import IN_MEMORY, contents, data, make


def test_a_deleted_shard_comes_back_with_the_same_bytes(
    make_config: Callable[..., Config],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # by another command: the manifest still names the one that made the data
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "pipeline", "--other"])
    folder = tmp_path / "data"
    shutil.copytree(finished, folder)
    before = contents(folder)
    (folder / "train-00001-of-00003.tar").unlink()
    kept = (folder / "train-00000-of-00003.tar").stat().st_mtime_ns
    assert verify(Folder(str(folder))) == 1
    make(make_config(), IN_MEMORY)
    assert contents(folder) == before
    assert (folder / "train-00000-of-00003.tar").stat().st_mtime_ns == kept
    shutil.rmtree(folder / ".work")
    (folder / "valid-00000-of-00001.tar").unlink()
    make(make_config(), IN_MEMORY)
    assert contents(folder) == before


def test_work_that_another_release_began_is_refused(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(finished, folder)
    plan = folder / ".work" / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text())["chunks"]))
    before = contents(folder)
    make(make_config())  # finished already: nothing of the work is needed
    lost = folder / "train-00001-of-00003.tar"
    content = before.pop(lost.name)
    lost.unlink()
    expected = rf"plan\.json: layout 1, expected {plans.LAYOUT}.*remove .*\.work"
    with pytest.raises(PipelineError, match=expected):
        make(make_config(), IN_MEMORY)
    assert contents(folder) == before
    shutil.rmtree(folder / ".work")
    make(make_config(), IN_MEMORY)
    assert lost.read_bytes() == content


def test_another_config_is_refused_by_key_and_foreign_files_stay(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    before = contents(finished)
    with pytest.raises(PipelineError, match=r"shards\.train: 3 -> 5"):
        make(make_config(output=str(finished), shards=Shards(train=5, block_sequences=16)))
    assert contents(finished) == before
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("dear")
    with pytest.raises(PipelineError, match=r"thesis\.tex"):
        make(make_config(), overwrite=True)
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["thesis.tex"]


@pytest.fixture(params=["local", "memory"])
def strangers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    """A folder with somebody else's files, some of which have names that a run uses."""
    folder = Folder(str(tmp_path / "data") if request.param == "local" else "memory://bucket/data")
    folder.write("tokenizer.json", b"precious")
    folder.write("tasks/todo.txt", b"mine")
    yield folder
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", b'{"a": 1}'),
        ("manifest.json", b'{"format": "latemask-shards"}'),
        ("manifest.json", b"[1]"),
        ("manifest.json", b'{"format": "latemask-sh'),
        ("manifest.json", b"\xff\xfe"),
        (".work/config.json", b'{"a": 1}'),
        (".work/config.json/deep", b""),
        (".work/notes.txt", b"mine"),
        (".work/lock", b"mine"),
        (".work/lock", b""),
        (".work/lock/notes.json", b"mine"),
    ],
)
def test_no_name_makes_a_folder_ours(strangers: Folder, name: str, content: bytes) -> None:
    strangers.write(name, content)
    before = strangers.list(deep=True)
    with pytest.raises(PipelineError, match="holds files that this program didn't write"):
        work.check_ownership(strangers)
    assert strangers.list(deep=True) == before


def test_what_a_run_left_makes_a_folder_ours(
    strangers: Folder, make_config: Callable[..., Config], finished: Path
) -> None:
    manifest = (finished / "manifest.json").read_bytes()
    strangers.write("manifest.json", manifest)
    work.check_ownership(strangers)
    strangers.delete("manifest.json")
    with lock(strangers):
        work.check_ownership(strangers)  # as where `--overwrite` was killed
        work.begin(strangers, make_config(), overwrite=True)
    strangers.delete(".work/lock/" if strangers.local is None else ".work/lock")
    work.check_ownership(strangers)


def test_a_damaged_manifest_is_written_again_once_it_is_out_of_the_way(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(finished, folder)
    manifest = folder / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content[: len(content) // 2])
    before = contents(folder)
    with pytest.raises(PipelineError, match=r"manifest\.json: not JSON, so damaged; move it away"):
        make(make_config(), IN_MEMORY)
    assert contents(folder) == before
    manifest.unlink()
    make(make_config(), IN_MEMORY)
    assert data(folder) == data(finished)


def test_documents_of_an_unknown_config_are_neither_used_nor_removed(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    """As where a removal was killed: the config goes first."""
    folder = tmp_path / "data"
    shutil.copytree(finished, folder)
    (folder / "manifest.json").unlink()
    (folder / ".work" / "config.json").unlink()
    before = contents(folder)
    with pytest.raises(PipelineError, match=r"config\.json: not there.* --overwrite"):
        make(make_config(), IN_MEMORY)
    assert contents(folder) == before
    make(make_config(), IN_MEMORY, overwrite=True)
    assert data(folder) == data(finished)


@pytest.mark.parametrize("name", [".data.new", ".data.old"])
def test_a_replacement_spares_what_is_not_ours(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(finished, tmp_path / "data")
    (tmp_path / name).mkdir()
    (tmp_path / name / "tokenizer.json").write_text("precious")
    with pytest.raises(PipelineError, match=rf"{name}: holds files"):
        make(make_config(), IN_MEMORY, overwrite=True)
    assert (tmp_path / name / "tokenizer.json").read_text() == "precious"


def test_clean_documents_are_kept_when_only_later_keys_change(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    begun = make_config(tokenizer=Tokenizer(vocab_size=280), shards=Shards(train=5))
    make(begun, IN_MEMORY)
    folder = Path(begun.output)
    (folder / "manifest.json").unlink()  # as before the end
    documents = {path: path.stat().st_mtime_ns for path in (folder / ".work/documents").iterdir()}
    make(make_config(), IN_MEMORY)
    assert data(folder) == data(finished)
    assert documents == {path: path.stat().st_mtime_ns for path in documents}
    (folder / "manifest.json").unlink()
    with pytest.raises(PipelineError, match=r"cleaning\.min_characters: 50 -> 60"):
        make(make_config(cleaning=Cleaning(min_characters=60)), IN_MEMORY)


def test_two_runs_cannot_write_one_folder(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "data" / ".work").mkdir(parents=True)
    with (tmp_path / "data" / ".work" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PipelineError, match="another run"):
            make(make_config())


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(
    make_config: Callable[..., Config], finished: Path, corpus: Path, tmp_path: Path
) -> None:
    config = make_config()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"output": config.output, **config.content()}))
    command = [sys.executable, "-m", "pipeline", "--config", str(path)]
    for pattern in (".work/chunks/*.json", ".work/tokens/*.npy", "train-*.tar"):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and not list(Path(config.output).glob(pattern)):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (Path(config.output) / "manifest.json").exists()
    make(config, IN_MEMORY)
    assert data(tmp_path / "data") == data(finished)


def test_a_finished_folder_stays_until_its_successor_is_whole(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(finished, folder)
    before = contents(folder)
    (folder / "notes.txt").write_text("somebody's")
    (folder / "notes").mkdir()
    bad = Source(kind="text", name="bad", paths=[str(tmp_path / "bad.gz")])
    (tmp_path / "bad.gz").write_bytes(gzip.compress(b"cut off")[:-4])
    with pytest.raises(PipelineError, match=r"bad\.gz"):
        make(make_config(sources=[bad]), IN_MEMORY, overwrite=True)
    assert {name: contents(folder)[name] for name in before} == before
    assert problems(Folder(str(folder))) == []
    make(make_config(shards=Shards(train=2, block_sequences=16)), IN_MEMORY, overwrite=True)
    assert sorted(p.name for p in folder.glob("*.tar")) == [
        "train-00000-of-00002.tar",
        "train-00001-of-00002.tar",
        "valid-00000-of-00001.tar",
    ]
    assert problems(Folder(str(folder))) == []
    assert not list(tmp_path.glob(".data*"))
    assert (folder / "notes.txt").read_text() == "somebody's"
    assert (folder / "notes").is_dir()


def test_a_replacement_that_was_killed_half_way_is_finished(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / ".data.new")
    (tmp_path / ".data.old").mkdir()
    make(make_config(), IN_MEMORY)
    assert data(tmp_path / "data") == data(finished)
    assert not list(tmp_path.glob(".data*"))


def test_a_folder_where_nothing_is_cleaned_gives_way(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    missing = Source(kind="jsonl", name="words", paths=[str(tmp_path / "none.jsonl")])
    with pytest.raises(PipelineError, match=r"none\.jsonl"):
        make(make_config(sources=[missing]), IN_MEMORY)
    make(make_config(), IN_MEMORY)
    assert data(tmp_path / "data") == data(finished)
