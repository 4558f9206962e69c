"""Where the time goes: speed, and on request seconds of each part of a step and profiler traces."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pretrain.budget import Progress
from pretrain.config import RunConfig


class Speed:
    """How fast it goes since the last log line, and what of the time is lost."""

    def __init__(self, progress: Progress) -> None:
        self._since = time.monotonic()
        self._tokens = progress.tokens
        self._flops = progress.flops
        self._waited = 0.0
        self._stalled = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The loop waits for data."""
        begin = time.monotonic()
        yield
        self._waited += time.monotonic() - begin

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Something that is not training, which is not counted."""
        begin = time.monotonic()
        yield
        self._since += time.monotonic() - begin

    def take(self, progress: Progress, stalled: float, peak: float | None) -> dict[str, float]:
        """The metrics since the last call.

        Args:
            progress: now.
            stalled: seconds that checkpoints have cost so far.
            peak: TFLOP/s of all devices, for the MFU.
        """
        now = time.monotonic()
        seconds = now - self._since
        tflops = (progress.flops - self._flops) / seconds / 1e12
        values = {
            "speed/tokens_per_second": (progress.tokens - self._tokens) / seconds,
            "speed/tflops": tflops,
            "speed/data_wait": self._waited / seconds,
            "speed/checkpoint_stall": (stalled - self._stalled) / seconds,
        }
        if peak:
            values["speed/mfu"] = tflops / peak
        self._since = now
        self._waited = 0.0
        self._stalled = stalled
        self._tokens = progress.tokens
        self._flops = progress.flops
        return values


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
        """Each part's share of the time since the last call, as `time/NAME`."""
        now = time.perf_counter()
        shares = {f"time/{name}": s / (now - self._since) for name, s in self._seconds.items()}
        self._seconds = {}
        self._since = now
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


# Dense bf16, from the makers' data sheets; first match wins.
_PEAK_TFLOPS = {"B200": 2250, "GH200": 989, "H200": 989, "H100 PCIe": 756, "H100": 989,
                "A100": 312, "A800": 312, "L40S": 362, "L40": 181, "L4": 121}  # fmt: skip


def peak_tflops(settings: RunConfig, device: torch.device, precision: str) -> float | None:
    """Of one device: as configured, else of a GPU known by name; None if neither."""
    if settings.peak_tflops or device.type != "cuda" or precision != "bf16":
        return settings.peak_tflops
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in _PEAK_TFLOPS.items() if key in name), None)
