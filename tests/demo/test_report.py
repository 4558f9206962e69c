"""The report: every figure from the stages' files, and nothing fetched when it is opened."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from demo.report import build, main
from pipeline.config import Cleaning
from pipeline.report.balance import READ, drop_reasons
from pipeline.split import SPLITS

# The keys are those of a manifest, so that a count which it no longer has isn't looked for.
COUNTS = {
    **dict.fromkeys([*READ, *drop_reasons(Cleaning()), *SPLITS], 0),
    "read": 4321, "too_short": 21, "duplicate": 300,
    "train": 3000, "valid": 100, "tasks": 900, "characters": 5_000_000,
}  # fmt: skip


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def demo_folder(tmp_path: Path) -> Path:
    splits = {"train": {"tokens": 1_234_567}, "valid": {"tokens": 128}}
    counts = {"total": COUNTS, "sources": {"numpy": COUNTS, "scipy": COUNTS}}
    write(tmp_path / "data/manifest.json", {"splits": splits, "counts": counts})
    for name, rate, layer, loss in (("late", 0.5, 2, 6.54), ("vanilla", 0.15, 0, 6.63)):
        config = {
            "masking": {"rate": rate, "masked_share": 0.8, "insert_layer": layer},
            "model": {"num_hidden_layers": 4},
        }
        write(tmp_path / name / "config.yaml", yaml.safe_dump(config))
        point = {"tokens": 2048, "flops": 4e9, "hours": 0.01}
        records = [
            {"step": 0, "valid/unigram_loss": 6.7147} | point,
            {"step": 1, "train/loss": 7.0, "speed/tokens_per_second": 15000.0} | point,
            {"step": 1, "valid/loss": 6.69, "valid/accuracy": 0.05} | point | {"hours": 0.005},
            {"step": 2, "valid/loss": loss, "valid/accuracy": 0.05} | point,
        ]
        write(tmp_path / name / "metrics.jsonl", "\n".join(json.dumps(r) for r in records))
    cells = [
        {
            "task": t, "method": m, "metric": "accuracy", "median": v, "std": 0.01, "n": 2,
            "constant": c,
        }
        for t, m, v, c in (
            ("library", "finetune", 0.737, 2 / 3), ("library", "mask", 0.651, 2 / 3),
            ("same_docstring", "finetune", 0.625, 0.5), ("same_docstring", "mask", 0.636, 0.5),
        )
    ]  # fmt: skip
    write(tmp_path / "glue/table.json", cells)
    write(tmp_path / "late/hf/model.safetensors", "x" * 4_000_000)
    write(tmp_path / "glue/library/finetune/seed-1/model.safetensors", "x" * 4_100_000)
    write(tmp_path / "glue/library/mask/seed-1/adapter_model.safetensors", "x" * 120_000)
    filled = {"text": "a<mask> <b>", "masks": [[{"token": " list", "probability": 0.25}]]}
    write(tmp_path / "filled.jsonl", filled)
    (tmp_path / "tsne.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            value or "" for name, value in attrs if name in ("src", "href") and tag != "use"
        ]


def test_the_page_says_how_much_sooner_late_masking_is_there(demo_folder: Path) -> None:
    # From 6.69 at half the time to 6.54: it passes vanilla's 6.63 after 0.4 of the second half.
    html = build(demo_folder)
    assert "<b>0.70 of its time</b>" in html and "ends 0.09 nats lower" in html
    file = demo_folder / "late/metrics.jsonl"
    file.write_text(file.read_text().replace("6.54", "6.65"))
    assert "did not end below the vanilla run" in build(demo_folder)


def test_every_figure_is_on_the_page_and_nothing_is_fetched(demo_folder: Path) -> None:
    html = build(demo_folder)
    for figure in (
        "1,234,567",
        "6.540",
        "6.630",
        "6.715",
        "73.7 %",
        "65.1 %",
        "66.7 %",
        "0.120 MB",
        "read 60 % of the tokens",
    ):
        assert figure in html, figure
    assert "a&lt;mask&gt; &lt;b&gt;" in html
    page = Page()
    page.feed(html)
    assert page.tags.count("svg") == 4
    assert all(value.startswith(("data:", "#")) for value in page.fetched)
    assert not re.search(r"@import|url\((?!#)", html)


def test_a_missing_file_ends_with_the_command_that_makes_it(demo_folder: Path) -> None:
    main([str(demo_folder)])
    before = (demo_folder / "report.html").read_text()
    (demo_folder / "filled.jsonl").unlink()
    with pytest.raises(SystemExit, match=r"filled\.jsonl.*make demo"):
        main([str(demo_folder)])
    assert (demo_folder / "report.html").read_text() == before
