"""What a start records of the code: the commit of its own checkout, and of nothing else."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from pretrain.provenance import code_state, describe_start


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "provenance.py").write_text("")
    git(tmp_path, "init", "--quiet")
    return tmp_path


def test_the_commit_and_whether_the_files_are_as_committed(checkout: Path) -> None:
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "-m", "First")
    commit = git(checkout, "rev-parse", "HEAD")
    assert code_state(checkout) == (commit, True)
    (checkout / "runs").mkdir()
    (checkout / "runs" / "log").write_text("results are no change of the code")
    assert code_state(checkout) == (commit, True)
    (checkout / "pretrain" / "provenance.py").write_text("changed")
    assert code_state(checkout) == (commit, False)


def test_a_checkout_of_something_else_is_none_of_ours(checkout: Path, tmp_path: Path) -> None:
    assert code_state(checkout) == (None, None)  # the package is there, but not tracked
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "-m", "First")
    inner = checkout / "site-packages"
    (inner / "pretrain").mkdir(parents=True)
    assert code_state(inner) == (None, None)
    assert code_state(tmp_path / "nothing") == (None, None)


def test_git_may_be_missing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert code_state(checkout) == (None, None)


def test_a_start_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["pretrain/main.py", "--run.output_dir", "a b"])
    start = json.loads(json.dumps(describe_start(torch.device("cpu"), 2)))
    assert start["command"] == "pretrain/main.py --run.output_dir 'a b'"
    assert start["versions"]["torch"] == torch.__version__
    assert start["ranks"] == 2
