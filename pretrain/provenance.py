"""With what code, command and machine a run was started: for the run folder and the model card."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

_LIBRARIES = ("latemask", "torch", "deepspeed", "transformers", "tokenizers", "numpy")


def describe_start(device: torch.device, num_ranks: int) -> dict[str, Any]:
    """This start as JSON values: time, command, git commit, versions, machine."""
    commit, clean = _git_commit(Path(__file__).parents[1])
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.processor() or "CPU"
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.argv),
        "commit": commit,
        "clean": clean,
        "python": platform.python_version(),
        "versions": {library: version(library) for library in _LIBRARIES},
        "host": platform.node(),
        "device": name,
        "ranks": num_ranks,
    }


def _git_commit(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout at `root`, and whether its files are as committed.

    (None, None) where `root` is none: the folder of an installed package may lie in the working
    tree of something else.
    """
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, not changes.strip()


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
