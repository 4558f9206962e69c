"""How a data set came about: the code, the command and the versions that made it.

manifest.json has it under `provenance`, for people to read. It is no part of what a data set is:
the same shards may be made by another command, so whatever compares manifests leaves it out.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.credentials import public
from pipeline.distribution import version_of

KEY = "provenance"
PACKAGES = ("latemask", "apache-beam", "tokenizers", "numpy")
GIT_SECONDS = 30.0  # a network filesystem may take its time, but must not hold up a run
# Variables by which a hook or a script points git at another repository than the folder's.
_OTHER_REPOSITORY = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
_SECRET_OPTION = re.compile(r"--\S*(secret|password|access_key|session_token|connection_string)")


def record() -> dict[str, Any]:
    """Commit, command and versions of this process, as JSON types."""
    commit, clean = code_state(Path(__file__).resolve().parents[1])
    return {
        "commit": commit,
        "clean": clean,
        "command": command_line(sys.orig_argv),
        "versions": {
            "python": platform.python_version(),
            **{package: version_of(package) for package in PACKAGES},
        },
    }


def without(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says of the data itself."""
    return {key: value for key, value in manifest.items() if key != KEY}


def code_state(root: Path) -> tuple[str | None, bool | None]:
    """The git commit of the checkout at `root`, and whether its tracked files are unchanged.

    Both are None unless `root` is the top of a checkout that tracks this file: an installed package
    may lie in the repository of somebody else's project, whose commit would say nothing.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None, None
    this_file = f"{Path(__file__).parent.name}/{Path(__file__).name}"
    if _git(root, "ls-files", "--error-unmatch", this_file) is None:
        return None, None
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return None, None
    return commit, not changes


def command_line(arguments: Sequence[str]) -> str:
    """The command for a shell, without Python's path, secret options' values, URLs' credentials."""
    shown = ["python"]
    hide_next = False
    for argument in arguments[1:]:
        option, equals, _ = argument.partition("=")
        secret = _SECRET_OPTION.match(option) is not None
        if hide_next:
            shown.append("***")
        else:
            shown.append(f"{option}=***" if secret and equals else argument)
        hide_next = secret and not equals
    return shlex.join(map(public, shown))


def _git(root: Path, *arguments: str) -> str | None:
    """What a git command prints; None when it fails, hangs, or there is no git."""
    environment = {k: v for k, v in os.environ.items() if k not in _OTHER_REPOSITORY}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
