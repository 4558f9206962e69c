"""A process's peak memory against bytes that a child is known to touch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tiny_run import ROOT
from pretrain.memory import peak_resident_gib

TOUCH = """
import sys
from pretrain.memory import peak_resident_gib
before = peak_resident_gib()
held = b"x" * int(sys.argv[1])
del held
print(before, peak_resident_gib())
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc here")


def test_the_peak_is_the_process_s_own_and_stays() -> None:
    """What its parent held does not count; what it has freed itself does."""
    in_parent = bytearray(b"x") * 2**30
    found = subprocess.run(
        [sys.executable, "-c", TOUCH, str(2**28)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(in_parent) == 2**30 and peak_resident_gib() >= 1
    before, after = map(float, found.stdout.split())
    assert before < 1
    assert 0.2 < after - before < 0.3


def test_a_process_that_is_gone_has_none() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert peak_resident_gib(ended.pid) == 0
