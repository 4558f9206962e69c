"""The choice of a learning rate, and the grid's run among the seeds."""

import json
from pathlib import Path

import pytest

from reproduce.errors import ReproduceError
from reproduce.scores.grid import chosen_rates, glue, take_over


def finish(folder: Path, accuracy: float) -> None:
    folder.mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    (folder / "all_results.json").write_text(json.dumps({"eval_accuracy": accuracy}))


def test_the_best_rate_of_each_method_is_chosen_and_taken_over_once(tmp_path: Path) -> None:
    grid, seeds = tmp_path / "grid", tmp_path / "seeds"
    for method, rate, accuracy in [
        *[("finetune", "5e-05", 0.7), ("finetune", "0.0001", 0.9), ("finetune", "0.0002", 0.8)],
        *[("mask", "0.001", 0.6), ("mask", "0.006", 0.65)],
    ]:
        finish(grid / "sst2" / method / f"lr-{rate}" / "seed-1", accuracy)
    finish(grid / "rte" / "mask" / "lr-0.001" / "seed-1", 0.99)
    rates = chosen_rates(grid, "sst2")
    assert rates == {"finetune": 1e-4, "mask": 6e-3}
    for method, rate in rates.items():
        take_over(grid, seeds, "sst2", method, rate, seed=1)
    taken = json.loads((seeds / "sst2/finetune/seed-1/all_results.json").read_text())
    assert taken == {"eval_accuracy": 0.9}
    # A later, different choice does not write over what is there.
    take_over(grid, seeds, "sst2", "finetune", 5e-5, seed=1)
    assert json.loads((seeds / "sst2/finetune/seed-1/all_results.json").read_text()) == taken
    assert sorted(p.name for p in (seeds / "sst2").rglob("*seed*")) == ["seed-1", "seed-1"]


def test_a_failed_run_ends_the_experiment(tmp_path: Path) -> None:
    with pytest.raises(ReproduceError, match=r"finetune\.glue table .+ exit code 2, see"):
        glue("table", tmp_path / "nothing")
