"""What is installed with the package: the distribution's version, and the configs beside it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

# `configs/` of the checkout under the name that it is installed by (setup.py).
INSTALLED_CONFIGS = "latemask_configs"

logger = logging.getLogger(__name__)


def version_of(distribution: str) -> str | None:
    """Its installed version; None for a checkout that was not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def answer_version(command: Sequence[str]) -> None:
    """End a command that asks for `--version`, best before it imports what takes seconds."""
    if "--version" in command:
        print(f"latemask {version_of('latemask') or 'from a checkout that is not installed'}")
        sys.exit(0)


def find_config(path: Path) -> Path:
    """`path`, or the installed file of that name where it is `configs/…` and there is none here."""
    if path.parts[:1] != ("configs",) or path.exists():
        return path
    spec = find_spec(INSTALLED_CONFIGS)
    for folder in (spec and spec.submodule_search_locations) or ():
        installed = Path(folder, *path.parts[1:])
        if installed.is_file():
            logger.info("%s: not in %s, so the installed %s", path, Path.cwd(), installed)
            return installed
    return path
