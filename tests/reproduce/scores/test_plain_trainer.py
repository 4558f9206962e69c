"""Its results lie where `finetune.glue table` and `compare` look for them."""

from pathlib import Path

from finetune.results.cells import collect
from reproduce.scores.plain_trainer import main


def test_results_are_read_as_those_of_glue_and_a_finished_run_is_skipped(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    command = [
        *("--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)),
        *("--task_name", "library", "--seed", "1", "2", "--max_steps", "2"),
        *("--output_dir", str(tmp_path)),
    ]
    main(command)
    (cell,) = collect(tmp_path)
    assert (cell.task, cell.method, cell.metric, cell.n) == ("library", "finetune", "accuracy", 2)
    files = sorted(tmp_path.glob("library/finetune/seed-*/all_results.json"))
    before = [file.stat().st_mtime_ns for file in files]
    main(command)
    assert [file.stat().st_mtime_ns for file in files] == before
