"""Which runs a figure takes, and which it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from reproduce.weight_masks.runs import obtain, sweep


def test_finished_runs_are_taken_as_they_are(runs: Path, flags: list[str], tmp_path: Path) -> None:
    # Other training flags than theirs: nothing is trained, so they don't matter.
    found = obtain([*flags, "--max_steps", "99"], ["mask"], runs, tmp_path)
    assert (found.tasks, found.seeds) == (["library", "rte"], [1, 2])
    assert found.jobs["rte", "mask", 2].folder == runs / "rte/mask/seed-2"
    assert found.identity("rte", "mask", 1) != found.identity("rte", "mask", 2)
    assert found.setting.startswith("roberta, 2 blocks of width 16; library (96 training rows)")
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_trained_and_only_that(
    runs: Path, flags: list[str], tmp_path: Path
) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    lost = tmp_path / "runs/rte/mask/seed-1"
    kept = tmp_path / "runs/rte/mask/seed-2/all_results.json"
    before, stamp = json.loads((lost / "all_results.json").read_text()), kept.stat().st_mtime_ns
    shutil.rmtree(lost)
    obtain(flags, ["finetune", "mask"], None, tmp_path)
    again = json.loads((lost / "all_results.json").read_text())
    assert again["eval_loss"] == pytest.approx(before["eval_loss"], rel=1e-4)
    assert kept.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seed", "7"], "library/mask/seed-7: no finished run of library, mask, seed 7"),
        (["--max_seq_length", "8"], "made with max_seq_length 16, found 8"),
        (["--max_eval_samples", "9"], "made with max_eval_samples None, found 9"),
        (["--learning_rate", "1e-3", "1e-2"], "learning_rate: found 2 for mask on library"),
    ],
)
def test_other_runs_are_refused(
    runs: Path, flags: list[str], tmp_path: Path, more: list[str], message: str
) -> None:
    with pytest.raises(FinetuneError, match=message):
        obtain([*flags, *more], ["mask"], runs, tmp_path)


def test_other_labels_are_refused(runs: Path, flags: list[str], tmp_path: Path) -> None:
    shutil.copytree(runs / "rte", tmp_path / "rte")
    record = tmp_path / "rte/mask/seed-1/job.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"labels": ["a", "b", "c"]}))
    with pytest.raises(FinetuneError, match=r"made with labels \['a', 'b', 'c'\], found"):
        obtain([*flags, "--task_name", "rte"], ["mask"], tmp_path, tmp_path)


def test_a_regression_is_refused(flags: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "STS-B"
    folder.mkdir()
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("sentence1\tsentence2\tscore\nred\tblue\t1.5\n")
    words = [*flags, "--task_name", "stsb", "--data_dir", str(tmp_path)]
    with pytest.raises(FinetuneError, match="stsb: this figure needs tasks that classify"):
        obtain(words, ["mask"], None, tmp_path)


def test_a_sweep_reads_the_data_once(flags: list[str], tmp_path: Path) -> None:
    cells = {name: ["--initial_sparsity", name] for name in ("0.1", "0.4")}
    words = [*flags, "--task_name", "library", "--seed", "1", "--max_steps", "1"]
    inputs, jobs = sweep(words, cells, tmp_path)
    assert len(inputs._tasks) == 1
    for name, (job,) in jobs.items():
        assert job.folder == tmp_path / name / "library/mask/seed-1"
        record = json.loads((job.folder / "job.json").read_text())
        assert record["mask"]["initial_sparsity"] == float(name)
