"""The processes above this one that have started it; without them nobody waits for it."""

from __future__ import annotations

import os

import psutil

_INIT = 1  # what inherits orphans


class Launcher:
    """The process that started this one, and under DeepSpeed the `deepspeed` command above that."""

    def __init__(self) -> None:
        """Look now: later on they may have died unseen."""
        self._parent = os.getppid()
        self._command: int | None = None
        self._was_gone = False
        if "CROSS_RANK" in os.environ:
            self._command = _parent_of(self._parent)
            self._was_gone = self._died_before()

    def _died_before(self) -> bool:
        """Whether one of DeepSpeed's has died already, and another process has inherited a child.

        All of them share a process group.
        """
        if self._command is None or os.getpgid(self._parent) != os.getpgrp():
            return True
        try:
            return self._command == _INIT and "deepspeed" not in " ".join(
                psutil.Process(_INIT).cmdline()
            )
        except psutil.Error:
            return True

    @property
    def is_gone(self) -> bool:
        """Whether one of them has died."""
        if self._was_gone or os.getppid() != self._parent:
            return True
        return self._command is not None and _parent_of(self._parent) != self._command


def _parent_of(process: int) -> int | None:
    try:
        return psutil.Process(process).ppid()
    except psutil.Error:
        return None
