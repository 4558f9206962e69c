"""Two checkpoints compared: against the tests' definitions, and in words."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from finetune.errors import FinetuneError
from finetune.glue import main
from finetune.results.comparison import overall, pair
from finetune.results.runs import read_runs


def write(folder: Path, task: str, values: dict[int, float], metric: str = "accuracy") -> None:
    for seed, value in values.items():
        job = folder / task / "finetune" / f"seed-{seed}"
        job.mkdir(parents=True)
        (job / "all_results.json").write_text(json.dumps({f"eval_{metric}": value}))


A = {1: 0.60, 2: 0.63, 3: 0.58, 4: 0.61}
B = {4: 0.70, 3: 0.66, 2: 0.71, 1: 0.69}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    write(tmp_path / "a", "rte", A)
    write(tmp_path / "b", "rte", B | {9: 0.1})  # seed 9 has no partner
    write(tmp_path / "a", "cola", {1: 0.5, 2: 0.4}, "matthews_correlation")
    write(tmp_path / "b", "cola", {1: 0.4, 2: 0.5}, "matthews_correlation")
    write(tmp_path / "a", "qnli", {1: 0.8})
    write(tmp_path / "b", "qnli", {1: 0.8})
    return tmp_path / "a", tmp_path / "b"


def test_p_values_are_those_of_the_definitions(folders: tuple[Path, Path]) -> None:
    pairs = pair(read_runs(folders[0]), read_runs(folders[1]))
    by_task = {p.task: p for p in pairs}
    differences = np.array([B[seed] - A[seed] for seed in A])
    t = differences.mean() / (differences.std(ddof=1) / 2)
    assert by_task["rte"].p_value() == pytest.approx(2 * stats.t.sf(t, 3))
    assert by_task["qnli"].p_value() is None
    every = np.concatenate([p.second - p.first for p in pairs])
    signs = np.array(list(product([1, -1], repeat=len(every))))
    means = np.abs((signs * every).mean(axis=1))
    mean, p_value = overall(pairs)
    assert mean == pytest.approx(every.mean())
    assert p_value == pytest.approx(np.mean(means >= abs(every.mean()) - 1e-12), abs=0.02)


def test_a_single_pair_says_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a", "rte", {1: 0.5})
    write(tmp_path / "b", "rte", {1: 0.75})
    pairs = pair(read_runs(tmp_path / "a"), read_runs(tmp_path / "b"))
    assert overall(pairs) == (0.25, 1.0)


def test_words(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", *map(str, folders), "--output", str(folders[0] / "compare.md")])
    text = capsys.readouterr().out
    assert (folders[0] / "compare.md").read_text() == text
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:2] == "| "}
    assert "| 4 | 60.5 | 69.0 | +8.5 |" in rows["rte"] and "B is better" in rows["rte"]
    assert "no difference shown" in rows["cola"] and "one seed says nothing" in rows["qnli"]
    assert "Over all 7 pairs" in text


def test_the_same_folder_twice_and_nothing_in_common(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", str(folders[0]), str(folders[0])])
    assert "B is" not in capsys.readouterr().out
    write(tmp_path / "c", "mrpc", {1: 0.5})
    with pytest.raises(FinetuneError, match="share no job"):
        main(["compare", str(folders[0]), str(tmp_path / "c")])
    with pytest.raises(FinetuneError, match="no finished job"):
        main(["compare", str(folders[0]), str(tmp_path / "none")])
