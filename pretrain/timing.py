"""Where the time goes: seconds of each part of a step, and torch.profiler's traces, on request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pretrain.config import RunConfig


class Parts:
    """`with parts("forward"):` adds up wall-clock seconds by name, the device's work included.

    Disabled, it costs nothing and waits for nothing.
    """

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        self.device, self.enabled = device, enabled
        self._seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside under `name`."""
        if not self.enabled:
            yield
            return
        begin = self._now()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + self._now() - begin

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def take(self) -> dict[str, float]:
        """Each part's share of the time since the last call, as `time/NAME`; begins anew."""
        now = time.perf_counter()
        shares = {f"time/{name}": s / (now - self._since) for name, s in self._seconds.items()}
        self._seconds, self._since = {}, now
        return shares


class Trace:
    """torch.profiler over `run.profile_steps`, as `traces/rank-R.json` for Perfetto or Chrome."""

    def __init__(self, settings: RunConfig, folder: Path, rank: int) -> None:
        self._first, self._count = settings.profile_steps or (0, 0)
        self._step = 0  # of this start
        self._file = folder / "traces" / f"rank-{rank}.json"
        self._profiler: torch.profiler.profile | None = None

    def before_step(self) -> None:
        """Begins and ends the trace where it was asked to."""
        if self._count and self._step == self._first:
            self._profiler = torch.profiler.profile(record_shapes=True, profile_memory=True)
            self._profiler.start()
        elif self._step == self._first + self._count:
            self.close()
        self._step += 1

    def close(self) -> None:
        """Write the trace, if one is being taken."""
        if self._profiler:
            self._profiler.stop()
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._profiler.export_chrome_trace(str(self._file))
            self._profiler = None
