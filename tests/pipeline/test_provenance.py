import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline import provenance

PACKAGE = Path(provenance.__file__).parent


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of one commit that holds this package."""
    root = tmp_path / "checkout"
    (root / PACKAGE.name).mkdir(parents=True)
    shutil.copy(provenance.__file__, root / PACKAGE.name)
    _git(root, "init", "-q")
    _git(root, "add", ".")
    _git(root, "commit", "-q", "-m", "first")
    return root


def test_the_commit_of_a_checkout_and_whether_it_was_changed(checkout: Path) -> None:
    commit = _git(checkout, "rev-parse", "HEAD")
    assert provenance.code_state(checkout) == (commit, True)
    (checkout / "corpus.txt").write_text("an untracked file is no change of the code")
    assert provenance.code_state(checkout) == (commit, True)
    (checkout / PACKAGE.name / "provenance.py").write_text("")
    assert provenance.code_state(checkout) == (commit, False)


def test_variables_of_a_git_hook_do_not_name_another_repository(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = _git(checkout, "rev-parse", "HEAD")
    _git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    assert provenance.code_state(checkout) == (commit, True)


def test_a_package_installed_in_somebodys_repository_has_no_commit(checkout: Path) -> None:
    site = checkout / ".venv/lib/site-packages"
    shutil.copytree(checkout / PACKAGE.name, site / PACKAGE.name)
    assert provenance.code_state(site) == (None, None)
    # installed straight into the top of a repository, which doesn't hold it
    _git(checkout, "rm", "-q", "--cached", "-r", PACKAGE.name)
    _git(checkout, "commit", "-q", "--allow-empty", "-m", "no package")
    assert (checkout / PACKAGE.name / "provenance.py").exists()
    assert provenance.code_state(checkout) == (None, None)


def test_without_a_repository_a_commit_or_git_there_is_no_commit(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(checkout / PACKAGE.name, bare / PACKAGE.name)
    assert provenance.code_state(bare) == (None, None)
    _git(bare, "init", "-q")
    _git(bare, "add", ".")
    assert provenance.code_state(bare) == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code_state(checkout) == (None, None)


def test_git_that_hangs_is_given_up(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.1)
    assert provenance.code_state(checkout) == (None, None)


def test_the_command_is_one_for_a_shell_and_holds_no_secrets() -> None:
    arguments = ["/home/me/.venv/bin/python3", "-m", "pipeline", "--config", "my config.yaml"]
    secret = ["--s3_secret_access_key", "hush", "--s3_session_token=hush", "--tokenizer.path", "t"]
    assert provenance.command_line([*arguments, *secret]) == (
        "python -m pipeline --config 'my config.yaml' "
        "--s3_secret_access_key '***' '--s3_session_token=***' --tokenizer.path t"
    )


def test_the_record_names_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "never-installed"))
    assert provenance.record()["versions"] == {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "never-installed": None,
    }
