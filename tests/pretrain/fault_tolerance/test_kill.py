"""kill -9 at random moments, and resuming on other layouts: the benchmarks, shortened."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kill_resume, resume


def test_kill_9_of_one_rank_all_or_the_launcher_changes_nothing(tmp_path: Path) -> None:
    found = kill_resume.measure(tmp_path, kills=3, seed=1, stage=1, steps=18)
    assert {kind for _, kind in found.kills} == set(kill_resume.KINDS_OF_KILL)


@pytest.mark.long
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_any_stage_survives_kill_9(tmp_path: Path, stage: int) -> None:
    kill_resume.measure(tmp_path, kills=3, seed=stage, stage=stage, steps=18)


@pytest.mark.long
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_resuming_is_exact_on_the_same_ranks_and_close_on_others(
    tmp_path: Path, stage: int
) -> None:
    (found,) = resume.measure([stage], ["2:2", "2:3"], 5, tmp_path).values()
    assert found["2:2"] == 0
    assert max(found.values()) < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("stage", [0, 2])
def test_muon_goes_on_as_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # its kernels take longer to compile than to run
    (found,) = resume.measure([stage], ["2:2", "2:1"], 5, tmp_path, "muon").values()
    assert found["2:2"] == 0
    assert found["2:1"] < 1e-4
