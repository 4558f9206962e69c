"""A track of two tiny entries, really run; who counts, and against whom."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.tiny_run import SEQ_LEN
from reproduce.errors import ReproduceError
from reproduce.late_masking.collect import read_csv
from reproduce.late_masking.experiment import read_yaml_as
from reproduce.speedrun import (
    CONFIG,
    Track,
    attempts_of,
    corpus_job,
    main,
    p_below,
    page,
    standing,
)

ROOT = Path(__file__).parents[2]
TINY = {
    "target": 5.0,
    "seeds": [1, 2],
    "corpus": {
        "seq_len": SEQ_LEN,
        "split": {"valid": 0.1},
        "cleaning": {"min_characters": 20},
        "tokenizer": {"vocab_size": 300},
        "shards": {"train": 1, "valid": 1},
    },
    "pretrain": {
        "model": {
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
        "run": {"eval_every": 8, "eval_sequences": 32, "log_every": 4},
    },
}


@pytest.fixture(scope="module")
def track_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checked-in track, made tiny, on words."""
    folder = tmp_path_factory.mktemp("track")
    (folder / "texts").mkdir()
    for number in range(60):
        words = " ".join(f"word{(number * i) % 17}" for i in range(1, 90))
        (folder / "texts" / f"{number}.txt").write_text(words)
    content = {"extends": str(ROOT / CONFIG)} | TINY
    content["corpus"] = TINY["corpus"] | {  # type: ignore[operator]
        "sources": [{"kind": "text", "paths": [f"{folder}/texts/*.txt"]}]
    }
    content["entries"] = {name: {"flops": 5e8} for name in ("huggingface", "vanilla", "late")}
    file = folder / "track.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.long
def test_the_record_is_of_what_ran(track_file: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "speedrun.md"
    words = ["--config", str(track_file), "--output_dir", str(tmp_path / "runs")]
    main([*words, "--page", str(page)])
    rows = read_csv(page.with_suffix("") / "results.csv")
    assert [(row["variant"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("huggingface", "vanilla", "late") for seed in (1, 2)
    ]
    assert all(row["seconds"] > 0 and 1 < row["loss"] < 8 for row in rows)
    assert len({row["data"] for row in rows}) == 1
    logs = {path.name for path in page.with_suffix("").glob("*.jsonl")}
    assert logs == {f"{row['variant']}-{row['seed']}.jsonl" for row in rows}
    text = page.read_text()
    for title in ("Hugging Face's Trainer", "vanilla, 15 %", "late masking"):
        assert text.count(f"| {title}") == 1
    made = page.stat().st_mtime_ns
    main([*words, "--page", str(page)])  # all is finished: the same results
    assert read_csv(page.with_suffix("") / "results.csv") == rows
    assert page.stat().st_mtime_ns > made and page.read_text() == text


def row(name: str, seed: int, seconds: float, loss: float, machine: str = "a") -> dict[str, object]:
    return {
        "variant": name, "seed": seed, "seconds": seconds, "loss": loss, "machine": machine,
        "tokens": 9, "commit": "c" * 40,
    }  # fmt: skip


def test_an_entry_counts_by_its_losses_and_times_compare_on_one_machine() -> None:
    track = replace(read_yaml_as(ROOT / CONFIG, Track), target=5.0)
    at = 5.0
    rows = [
        *(row("huggingface", seed, 100.0, at - 0.02 - seed / 1000) for seed in (1, 2, 3)),
        *(row("vanilla", seed, 50.0, at - 0.01 + 0.02 * seed) for seed in (1, 2, 3)),
        *(row("late", seed, 25.0, at - 0.02 - seed / 1000) for seed in (1, 2)),
        row("late", 3, 5.0, at - 0.03, machine="b"),
    ]
    late, huggingface, vanilla = standing(track, rows)
    assert [r["counts"] for r in (late, huggingface, vanilla)] == [True, True, False]
    assert (late["ratios"], huggingface["ratios"]) == ([0.25, 0.25], [1.0, 1.0, 1.0])
    assert vanilla["ratios"] == [0.5] * 3


def test_without_a_target_nothing_counts() -> None:
    """The track of one GPU, until one is at hand."""
    track = read_yaml_as(ROOT / "configs/reproduce/speedrun_gpu.yaml", Track)
    rows = [row("huggingface", seed, 9.0, 3.0, "g") | {"data": "d"} for seed in (1, 2, 3)]
    assert [found["counts"] for found in standing(track, rows)] == [False]
    text = page(track, rows, Path("track.yaml"), Path("docs/track"))
    assert "validation loss that is yet to be set, on one GPU" in text
    assert "| – |" in text and "reproduce speedrun --config track.yaml`" in text


def test_p_is_students() -> None:
    """By hand, for n = 2: t has one degree of freedom, a Cauchy distribution."""
    t = (4.9 - 5.0) / (math.sqrt(0.02) / math.sqrt(2))  # of 4.8 and 5.0: mean 4.9, variance 0.02
    assert p_below([4.8, 5.0], 5.0) == pytest.approx(0.5 + math.atan(t) / math.pi)
    assert (p_below([1.0], 5.0), p_below([4.0, 4.0], 5.0), p_below([5.0, 5.0], 5.0)) == (1, 0, 1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"only": ["lat"], "seeds": None}, "--only lat: no such entry; entries: huggingface, "),
        ({"only": None, "seeds": [9]}, "--seeds 9: not among the track's, which are 1 2 3"),
    ],
)
def test_unknown_ones_are_named(asked: dict[str, list], message: str, tmp_path: Path) -> None:
    with pytest.raises(ReproduceError, match=message):
        attempts_of(read_yaml_as(ROOT / CONFIG, Track), tmp_path, **asked)


def test_what_was_made_with_other_settings_is_not_taken(tmp_path: Path) -> None:
    """A track may change; its folder of an earlier time must not give results under its name."""
    track = read_yaml_as(ROOT / CONFIG, Track)
    made = corpus_job(track, tmp_path).makes[0]
    other = replace(track, corpus=track.corpus | {"seq_len": 64})
    corpus_job(other, tmp_path)  # nothing has been made yet
    made.parent.mkdir()
    made.write_text("{}")
    corpus_job(other, tmp_path)
    with pytest.raises(ReproduceError, match=r"data: made with other settings .*corpus\.yaml"):
        corpus_job(track, tmp_path)
    assert "seq_len: 64" in (tmp_path / "corpus.yaml").read_text()
