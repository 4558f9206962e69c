"""Verdicts, and the three files of a figure."""

import csv
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from reproduce.weight_masks.finding import Finding, publish, verdict


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ([True, True], "agrees"),
        ([False, False], "disagrees"),
        ([True, False], "undecided"),
        ([True, None], "undecided"),
        ([None], "undecided"),
        ([], "undecided"),
    ],
)
def test_verdict(holds: list[bool | None], expected: str) -> None:
    assert verdict(holds) == expected


def test_files(tmp_path: Path) -> None:
    finding = Finding(
        "sky", "It is blue.", "Figure 0", "It is grey.", "here", "by eye", "disagrees"
    )
    rows = [{"hour": 1, "shade": 1 / 3, "note": "a, b"}, {"hour": 2, "shade": None, "note": ""}]
    publish(tmp_path / "out", finding, rows, Figure())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "sky.csv",
        "sky.json",
        "sky.png",
    ]
    found = json.loads((tmp_path / "out" / "sky.json").read_text())
    assert (found["claim"], found["ours"], found["verdict"]) == (
        "It is blue.",
        "It is grey.",
        "disagrees",
    )
    with (tmp_path / "out" / "sky.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {"hour": "1", "shade": "0.333333", "note": "a, b"} and second["shade"] == ""
