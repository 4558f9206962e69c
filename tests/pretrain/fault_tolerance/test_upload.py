"""Checkpoints at a URL: complete or absent there, kept by the same rules, and back again.

The store is fsspec's in memory, whose requests are recorded and can be made to fail.
"""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from pretrain.budget import Progress
from pretrain.config import PretrainConfig, RunConfig
from pretrain.errors import NotSavedError, PretrainError
from pretrain.fault_tolerance import upload
from pretrain.fault_tolerance.checkpoint import State, part_name, write_part
from pretrain.fault_tolerance.run_folder import RunFolder, open_checkpoint
from pretrain.fault_tolerance.signals import STOP_SIGNALS
from pretrain.fault_tolerance.upload import Uploads
from pretrain.remote import StoreError
from tests.pretrain.fault_tolerance.trial import Trial

URL = "memory://bucket/run"
ROOT = "/bucket/run/checkpoints"


class Store:
    """The objects, and what was done to them in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.filesystem = fsspec.filesystem("memory")
        self.filesystem.store.clear()
        self.done: list[tuple[str, str]] = []
        self.fails: Callable[[str, str], bool] = lambda _method, _path: False
        for method, position in (("put_file", 1), ("pipe_file", 0), ("rm_file", 0)):
            self._record(monkeypatch, method, position)

    def _record(self, monkeypatch: pytest.MonkeyPatch, method: str, position: int) -> None:
        original = getattr(self.filesystem, method)

        def recorded(*args: Any, **keywords: Any) -> Any:
            path = str(args[position])
            if self.fails(method, path):
                raise ConnectionError("the store is away")
            self.done.append((method, path))
            return original(*args, **keywords)

        monkeypatch.setattr(self.filesystem, method, recorded)

    @property
    def steps(self) -> list[int]:
        """Of the complete checkpoints."""
        found = self.filesystem.find(ROOT)
        return sorted(int(p.split("/")[-2][5:]) for p in found if p.endswith("/state.json"))

    @property
    def folders(self) -> list[int]:
        """Of the checkpoints of which there is anything."""
        return sorted({int(p.split("/")[-2][5:]) for p in self.filesystem.find(ROOT)})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(upload, "RETRY_SECONDS", 0.0)
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield Store(monkeypatch)
    for number, handler in before.items():
        signal.signal(number, handler)


def save(run: RunFolder, step: int, loss: float | None = None, value: float = 0.0) -> Path:
    folder = run.checkpoints / f"step-{step:08d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    name = part_name(0, 1)
    part = write_part(folder / name, {"weight/w@0": 4}, torch.arange(4.0) + value)
    state = State(
        progress=Progress(step=step), shapes={"w": [4]}, valid_loss=loss, parts={name: part}
    )
    state.write(folder / "state.json")
    return folder


def uploads_of(folder: Path, **settings: Any) -> Uploads:
    keep: dict[str, Any] = {"keep_checkpoints": 99, "keep_best": False} | settings
    return Uploads(RunFolder(folder), RunConfig(output_dir=str(folder), upload_to=URL, **keep))


def upload_all(folder: Path, **settings: Any) -> Uploads:
    uploads = uploads_of(folder, **settings)
    uploads.begin()
    uploads.finish()
    return uploads


def test_a_run_uploads_what_it_saves_and_state_json_last(tmp_path: Path, store: Store) -> None:
    trial = Trial(tmp_path, save_every=5, upload_to=URL, keep_best=False)
    assert trial.go()
    assert trial.saved == store.steps == [15, 20]
    for step in store.steps:
        name = f"{ROOT}/step-{step:08d}"
        last = [path for method, path in store.done if path.startswith(name)][-1]
        assert last == f"{name}/state.json"
        for file in (tmp_path / "checkpoints" / f"step-{step:08d}").iterdir():
            assert store.filesystem.cat_file(f"{name}/{file.name}") == file.read_bytes()


def test_a_failed_upload_stops_nothing_and_the_next_save_tries_again(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(tmp_path, save_every=5, upload_to=URL, keep_best=False, keep_checkpoints=4)
    failures = iter([True, True])
    store.fails = lambda method, _path: method == "put_file" and next(failures, False)
    with caplog.at_level(logging.WARNING):
        assert trial.go()
    assert store.steps == [5, 10, 15, 20]
    assert f"run.upload_to: {URL}/checkpoints/step-" in caplog.text
    assert "the run continues" in caplog.text


def test_a_last_checkpoint_that_is_not_uploaded_is_an_exit_code_and_the_rerun_uploads_it(
    tmp_path: Path, store: Store
) -> None:
    trial = Trial(tmp_path, save_every=10, upload_to=URL, keep_best=False)
    store.fails = lambda method, path: "step-00000020" in path
    with pytest.raises(NotSavedError, match=r"step-00000020/part.* away.*same command") as error:
        trial.go()
    assert error.value.exit_code == 74
    assert open_checkpoint(tmp_path).progress.step == 20
    assert store.steps == [10]
    store.fails = lambda method, path: False
    upload_all(tmp_path)
    assert store.steps == [10, 20]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep_checkpoints": 2, "keep_best": False}, [40, 50]),
        ({"keep_checkpoints": 1, "keep_best": True}, [30, 50]),
        ({"keep_checkpoints": 1, "keep_every": 20, "keep_best": False}, [20, 40, 50]),
    ],
)
def test_what_is_kept_is_what_the_folder_keeps(
    tmp_path: Path, store: Store, settings: dict[str, Any], kept: list[int]
) -> None:
    run = RunFolder(tmp_path)
    for step, loss in ((10, 4.0), (20, None), (30, 2.0), (40, 3.0), (50, None)):
        save(run, step, loss)
    upload_all(tmp_path)
    assert store.steps == [10, 20, 30, 40, 50]
    store.done.clear()
    upload_all(tmp_path, **settings)
    assert store.folders == store.steps == kept
    removed = [path for method, path in store.done if method == "rm_file"]
    for name in {path.rpartition("/")[0] for path in removed}:  # never without its state.json last
        assert next(p for p in removed if p.startswith(name)) == f"{name}/state.json"


def test_what_cannot_be_read_stays(tmp_path: Path, store: Store) -> None:
    run = RunFolder(tmp_path)
    for step in (10, 20, 30):
        save(run, step)
    upload_all(tmp_path)
    store.filesystem.pipe(f"{ROOT}/step-00000010/state.json", b"{")
    store.filesystem.pipe(f"{ROOT}/step-00000020/{part_name(0, 1)}", b"cut")
    for step in (10, 20):
        shutil.rmtree(run.checkpoints / f"step-{step:08d}")
    save(run, 40)
    upload_all(tmp_path, keep_checkpoints=1)
    assert store.folders == [10, 20, 40]


def test_what_a_killed_upload_left_is_not_complete_and_is_removed_or_completed(
    tmp_path: Path, store: Store
) -> None:
    run = RunFolder(tmp_path)
    save(run, 20)
    for step in (10, 20):
        store.filesystem.pipe(f"{ROOT}/step-{step:08d}/{part_name(0, 1)}", b"cut")
    assert uploads_of(tmp_path).begun_config() is None
    upload_all(tmp_path)
    assert store.folders == store.steps == [20]


def test_a_step_reached_again_replaces_the_one_there_and_later_ones_go(
    tmp_path: Path, store: Store
) -> None:
    run = RunFolder(tmp_path)
    for step in (10, 20, 30):
        save(run, step)
    upload_all(tmp_path)
    shutil.rmtree(run.checkpoints / "step-00000030")  # went back
    path = save(run, 20, value=1.0)
    store.done.clear()
    upload_all(tmp_path)
    assert store.folders == store.steps == [10, 20]
    part = f"{ROOT}/step-00000020/{part_name(0, 1)}"
    assert store.filesystem.cat_file(part) == (path / part_name(0, 1)).read_bytes()
    state = f"{ROOT}/step-00000020/state.json"
    assert [done for done in store.done if done[1] in (part, state)] == [
        ("rm_file", state),
        ("put_file", part),
        ("pipe_file", state),
    ]


def test_nothing_is_removed_for_a_folder_that_was_moved_away(tmp_path: Path, store: Store) -> None:
    for step in (10, 20):
        save(RunFolder(tmp_path / "a"), step)
    upload_all(tmp_path / "a")
    (tmp_path / "b").mkdir()
    upload_all(tmp_path / "b", keep_checkpoints=1)
    assert store.steps == [10, 20]


@pytest.fixture
def other_node(
    tmp_path: Path, store: Store, tiny_config: Callable[..., PretrainConfig]
) -> tuple[PretrainConfig, Uploads]:
    """The config of a run whose steps 10, 20 and 30 lie at the URL; its folder is empty."""
    config = tiny_config("--run.upload_to", URL, "--run.keep_checkpoints", "9")
    here = RunFolder(tmp_path / "first-node")
    here.path.mkdir()
    config.save(here.path / "config.yaml")
    (here.path / "metrics.jsonl").write_text('{"step": 30}\n')
    for step in (10, 20, 30):
        save(here, step, value=step)
    uploads = Uploads(here, config.run)
    uploads.begin()
    uploads.finish()
    run = RunFolder(config.run.output_dir)
    run.path.mkdir()
    return config, Uploads(run, config.run)


def test_an_empty_folder_resumes_from_the_newest_at_the_url(
    other_node: tuple[PretrainConfig, Uploads],
) -> None:
    config, uploads = other_node
    assert uploads.begun_config() == config
    uploads.restore(config)
    run = RunFolder(config.run.output_dir)
    checkpoint = run.newest(verify=True)
    assert checkpoint and checkpoint.progress.step == 30
    torch.testing.assert_close(checkpoint.weights()["w"], torch.arange(4.0) + 30)
    assert [path.name for path in run.checkpoint_paths()] == ["step-00000030"]
    assert run.begun_config() == config
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 30}\n'


def test_a_folder_with_older_steps_gets_the_newest_and_one_with_newer_steps_does_not(
    other_node: tuple[PretrainConfig, Uploads],
) -> None:
    config, uploads = other_node
    run = RunFolder(config.run.output_dir)
    save(run, 40)
    uploads.restore(config)
    assert [path.name for path in run.checkpoint_paths()] == ["step-00000040"]
    shutil.rmtree(run.checkpoints)
    save(run, 20)
    uploads.restore(config)
    newest = run.newest(verify=True)
    assert newest and newest.progress.step == 30


@pytest.mark.parametrize("damage", ["flipped", "cut off", "missing", "state.json", "odd name"])
def test_a_damaged_one_is_passed_over_and_named_and_stays(
    other_node: tuple[PretrainConfig, Uploads],
    store: Store,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    config, uploads = other_node
    folder = f"{ROOT}/step-00000030"
    part = f"{folder}/{part_name(0, 1)}"
    content = bytearray(store.filesystem.cat_file(part))
    if damage == "flipped":
        content[-1] ^= 1
        store.filesystem.pipe(part, bytes(content))
    elif damage == "cut off":
        store.filesystem.pipe(part, bytes(content[:-4]))
    elif damage == "missing":
        store.filesystem.rm(part)
    elif damage == "state.json":
        store.filesystem.pipe(f"{folder}/state.json", b"{")
    else:
        text = store.filesystem.cat_file(f"{folder}/state.json").decode()
        odd = text.replace(part_name(0, 1), "../../x")
        store.filesystem.pipe(f"{folder}/state.json", odd.encode())
    with caplog.at_level(logging.WARNING):
        uploads.restore(config)
    run = RunFolder(config.run.output_dir)
    newest = run.newest(verify=True)
    assert newest and newest.progress.step == 20
    assert f"{URL}/checkpoints/step-00000030 can't be used" in caplog.text
    assert not (run.path.parent / "x").exists()
    uploads.begin()  # as after a save: what can't be read stays
    uploads.finish()
    assert store.steps == [10, 20, 30]


def test_no_run_begins_again_because_all_at_the_url_are_damaged(
    other_node: tuple[PretrainConfig, Uploads], store: Store
) -> None:
    config, uploads = other_node
    for step in store.steps:
        store.filesystem.pipe(f"{ROOT}/step-{step:08d}/{part_name(0, 1)}", b"cut")
    with pytest.raises(PretrainError, match=r"none of its 3 checkpoints can be used"):
        uploads.restore(config)


def test_a_store_that_is_away_at_the_start_stops_only_a_run_that_needs_it(
    other_node: tuple[PretrainConfig, Uploads],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config, uploads = other_node

    def away(*_: object, **__: object) -> None:
        raise TimeoutError("away")

    monkeypatch.setattr(fsspec.filesystem("memory"), "find", away)
    with pytest.raises(StoreError, match=rf"{URL}/checkpoints can't be listed"):
        uploads.restore(config)
    run = RunFolder(config.run.output_dir)
    save(run, 10)
    with caplog.at_level(logging.WARNING):
        uploads.restore(config)
    assert f"resuming from {run.path} alone" in caplog.text


def test_the_url_of_another_run_is_refused(
    other_node: tuple[PretrainConfig, Uploads], tiny_config: Callable[..., PretrainConfig]
) -> None:
    _, uploads = other_node
    other = tiny_config("--run.upload_to", URL, "--run.seed", "7")
    with pytest.raises(
        PretrainError, match=r"run\.seed: was 0, is 7\nchoose another run.upload_to"
    ):
        uploads.restore(other)


def test_keys_that_cannot_be(tiny_config: Callable[..., PretrainConfig]) -> None:
    with pytest.raises(PretrainError, match=r"run\.upload_to is /disk; expected a URL"):
        tiny_config("--run.upload_to", "/disk")
    with pytest.raises(
        PretrainError, match=r"run\.output_dir is s3://b/r; a run writes to a local"
    ):
        tiny_config("--run.output_dir", "s3://b/r")
