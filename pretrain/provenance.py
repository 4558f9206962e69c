"""With what code, command and machine a run was started: for the run folder and the model card."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pretrain.distribution import version_of

_LIBRARIES = ("latemask", "torch", "deepspeed", "transformers", "tokenizers", "numpy")


def describe_start(device: torch.device, num_ranks: int) -> dict[str, Any]:
    """This start as JSON values: time, command, git commit, versions, machine."""
    commit, clean = code_state(Path(__file__).resolve().parents[1])
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.processor() or "CPU"
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.argv),
        "commit": commit,
        "clean": clean,
        "python": platform.python_version(),
        "versions": {library: version_of(library) for library in _LIBRARIES},
        "host": platform.node(),
        "device": name,
        "ranks": num_ranks,
    }


def code_state(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout at `root`, and whether its tracked files are as committed.

    (None, None) where `root` is no checkout of this package: the folder of an installed one may lie
    in the working tree of something else.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    own = f"{Path(__file__).parent.name}/{Path(__file__).name}"
    if top is None or Path(top).resolve() != root.resolve():
        return None, None
    if _git(root, "ls-files", "--error-unmatch", own) is None:
        return None, None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return _git(root, "rev-parse", "--verify", "HEAD"), None if changes is None else not changes


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None where it can't be asked or has no answer."""
    command = ["git", "-C", str(root), *arguments]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
