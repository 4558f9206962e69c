"""Faults that are really there: NaN in a gradient, lost ranks, a full disk, a changed shard."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from benchmarks.tiny_run import ROOT, Run, write_data
from pretrain.budget import Progress
from pretrain.fault_tolerance.checkpoint import State
from pretrain.fault_tolerance.faults import ENOUGH, LossGuard
from pretrain.fault_tolerance.run_folder import open_checkpoint

# Puts a NaN into one parameter's gradient on the last rank where a global batch begins in one of
# `spans`, and finds fault with the loss of step 3.
SABOTAGE = """
import dataclasses, sys, torch
sys.path.insert(0, {root!r})
from pretrain import batches, engine
from pretrain.fault_tolerance import supervisor
spans = {spans!r}
steps = batches.Batches.steps
forward_backward = engine.Engine.forward_backward
agree = supervisor.Supervisor.agree
now = [0]

def positioned_steps(self, position, masking, size):
    for batch in steps(self, position, masking, size):
        now[0] = position
        position += size
        yield batch

def bad_gradient(self, micro_batches):
    last = torch.distributed.get_rank() == torch.distributed.get_world_size() - 1
    hit = last and any(begin <= now[0] < end for begin, end in spans)
    hook = self.module.head.norm.bias.register_hook(lambda g: g * float("nan")) if hit else None
    try:
        return forward_backward(self, micro_batches)
    finally:
        if hook:
            hook.remove()

def strict(self, output):
    verdict = agree(self, output)
    fault = f"a loss of {{verdict.loss:.0f}}"
    return dataclasses.replace(verdict, fault=fault) if now[0] == 24 else verdict

batches.Batches.steps = positioned_steps
engine.Engine.forward_backward = bad_gradient
supervisor.Supervisor.agree = strict
from pretrain.main import end_process, run_from_command_line
end_process(run_from_command_line(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("faults") / "data")


def stage(number: int) -> tuple[str, str]:
    return "--run.deepspeed_config", str(ROOT / f"configs/deepspeed/zero{number}.json")


def sabotage(folder: Path, *spans: tuple[int, int]) -> list[str]:
    """The script whose gradients are bad where a global batch begins within one of `spans`."""
    script = folder / "sabotage.py"
    script.write_text(SABOTAGE.format(root=str(ROOT), spans=spans))
    return [str(script)]


def wait_for_checkpoint(run: Run) -> None:
    run.wait_until(lambda: list(run.folder.glob("checkpoints/step-*")), "a checkpoint")


def guard_with(losses: list[float], sigmas: float = 6.0) -> LossGuard:
    state = State(progress=Progress(), shapes={}, losses=losses, losses_stage=[0.5, 1.0])
    return LossGuard(sigmas, state)


def test_a_spike_is_told_from_noise() -> None:
    noise = [3.0 + 0.01 * ((7 * i) % 11) for i in range(ENOUGH)]
    guard = guard_with(noise)
    assert guard.fault(3.2) is None
    assert "the last 32 allow 3.2" in str(guard.fault(3.4))
    assert "nan" in str(LossGuard(6.0).fault(float("nan")))
    assert guard_with(noise[1:]).fault(9.0) is None  # too few to say
    assert guard_with(noise, sigmas=0).fault(9.0) is None
    assert guard_with(guard.remembered).fault(3.4) == guard.fault(3.4)
    guard.enter_stage([0.5, 1.0])
    assert guard.fault(3.4)
    guard.enter_stage([0.5, 2.0])
    assert guard.fault(3.4) is None  # the [MASK]s enter elsewhere: another level


@pytest.mark.parametrize(
    "number", [1, *(pytest.param(n, marks=pytest.mark.long) for n in (0, 2, 3))]
)
def test_bad_rows_are_skipped_and_many_of_them_jumped_over(
    rows: Path, tmp_path: Path, number: int
) -> None:
    settings = ("--run.max_skipped_steps", 3, "--run.save_every", 2, "--budget.steps", 12)
    run = Run(rows, tmp_path / "run", *stage(number), *settings)
    # Rows 84 to 131 are read by steps 8 to 10, and by the first one after going back.
    output = run.go(script=sabotage(tmp_path, (84, 132)))
    assert "step 3 is skipped: a loss of 6" in output
    assert "step 8 is skipped: its gradient's norm is" in output
    assert "going back from step 10 to 6, and on behind the 120 sequences" in output
    state = open_checkpoint(run.folder).state
    progress = state.progress
    assert state.adam_steps == 12 - 2  # steps 3 and 7, in the end
    assert (progress.step, progress.rollbacks, progress.skipped) == (12, 1, 1 + 3 + 1)
    assert progress.sequences == 120 + 6 * 12  # jumped over, not read again
    assert sorted(run.losses()) == list(range(1, 13))


@pytest.mark.long
def test_a_run_that_going_back_does_not_mend_gives_up(rows: Path, tmp_path: Path) -> None:
    settings = ("--run.max_skipped_steps", 2, "--run.max_rollbacks", 1, "--run.save_every", 2)
    run = Run(rows, tmp_path / "run", *settings)
    # Step 3 is skipped alone, and from row 48 on, step 5, everything.
    output = run.go(script=sabotage(tmp_path, (48, 10**9)), code=65)
    assert "going back from step 6 to 4" in output
    assert "error: step 6: 2 steps in a row had to be skipped, and going back 1 times" in output
    assert "Traceback" not in output
    assert open_checkpoint(run.folder).progress.step == 4


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGSTOP, "rank 1 has not answered for 5 s"),
        pytest.param(signal.SIGKILL, "rank 1 has died", marks=pytest.mark.long),
    ],
)
def test_a_lost_rank_ends_the_others_and_is_named(
    rows: Path, tmp_path: Path, request: pytest.FixtureRequest, number: int, message: str
) -> None:
    run = Run(rows, tmp_path / "run", "--budget.steps", 100000, "--run.rank_seconds", 5)
    run.start()
    request.addfinalizer(run.stop)
    wait_for_checkpoint(run)
    first, second = run.rank_processes()
    second.send_signal(number)
    psutil.wait_procs([first], timeout=20)
    assert not first.is_running() or first.status() == psutil.STATUS_ZOMBIE
    assert f"error: {message}" in run.output
    with suppress(psutil.NoSuchProcess):
        second.kill()  # the launcher would give one that is stopped 30 seconds
    assert run.wait() != 0
    assert open_checkpoint(run.folder).progress.step >= 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("a file system can be mounted by root only")
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("tmpfs can't be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_new_checkpoints_only(
    rows: Path, small_disk: Path, request: pytest.FixtureRequest
) -> None:
    run = Run(rows, small_disk / "run", "--budget.steps", 100000)
    run.log = small_disk.parent / "log"
    run.start()
    request.addfinalizer(run.stop)
    wait_for_checkpoint(run)
    ballast = small_disk / "ballast"

    def failures() -> int:
        """Fill what has become free, then look."""
        with ballast.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        return run.output.count("is not saved")

    lost = "metrics are being lost, the run continues"
    run.wait_until(lambda: failures() >= 2 and lost in run.output, "a second try")
    assert "No space left on device" in run.output
    kept = open_checkpoint(run.folder).progress.step
    for process in run.rank_processes():
        process.send_signal(signal.SIGUSR2)
    assert run.wait() == 74, run.output[-3000:]
    assert "could not be saved" in run.output
    assert open_checkpoint(run.folder).progress.step == kept
    ballast.unlink()
    assert "resuming from" in run.go("--budget.steps", kept + 2)


@pytest.mark.long
def test_a_changed_shard_ends_the_run_and_is_named(rows: Path, tmp_path: Path) -> None:
    shutil.copytree(rows, tmp_path / "data")
    shard = tmp_path / "data" / "train-00001-of-00002.tar"
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    output = Run(tmp_path / "data", tmp_path / "run").go(code=2)
    assert f"{shard} has sha256" in output
    assert f"`python -m pipeline verify {tmp_path / 'data'}` names what to rebuild" in output
    assert "Traceback" not in output


@pytest.mark.long
def test_other_data_under_the_same_run_is_refused(rows: Path, tmp_path: Path) -> None:
    shutil.copytree(rows, tmp_path / "data")
    run = Run(tmp_path / "data", tmp_path / "run", ranks=1)
    run.go("--run.stop_after_hours", "1e-9", code=75)
    manifest = tmp_path / "data" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert "was trained on other data" in run.go(code=2)
