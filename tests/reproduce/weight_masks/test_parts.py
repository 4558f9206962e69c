"""A part is computed once for its settings, and again for others."""

from pathlib import Path

import pytest

from reproduce.weight_masks.parts import once


def test_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> list[float]:
        calls.append(1)
        return [0.5, len(calls)]

    assert once(tmp_path, "a", {"x": 1, "y": 2}, compute) == [0.5, 1]
    assert once(tmp_path, "a", {"y": 2, "x": 1}, compute) == [0.5, 1]
    assert once(tmp_path, "a", {"x": 2, "y": 2}, compute) == [0.5, 2]
    assert once(tmp_path, "a", {"x": 1, "y": 2}, compute) == [0.5, 1]
    assert len(calls) == 2


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        once(tmp_path, "a", {}, lambda: 1 / 0)
    assert not list(tmp_path.iterdir())
