"""What decides a job's results is recorded and obeyed; what no job can use is refused at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from finetune.errors import FinetuneError
from finetune.glue import main
from finetune.jobs.plan import make_plan


def words(model: Path, out: Path, *more: object) -> list[str]:
    return [
        *("--model_name_or_path", str(model), "--output_dir", str(out), "--max_seq_length", "16"),
        *("--max_steps", "1", "--bf16", "false", *map(str, more)),
    ]


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """Flags of a task of one's own with two columns of text and two of labels."""
    rows = "".join(f"red {n},blue {n},{'ab'[n % 2]},{'ab'[n // 8]}\n" for n in range(16))
    (tmp_path / "rows.csv").write_text("one,two,first,second\n" + rows)
    file = str(tmp_path / "rows.csv")
    return ["--task_name", "mine", "--train_file", file, "--validation_file", file]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--text_columns", "two"], r"text_columns: found \['one'\], asked for \['two'\]"),
        (["--text_columns", "one", "two"], "text_columns: found"),
        (["--label_column", "second"], "label_column: found 'first', asked for 'second'"),
        (["--metrics", "macro_f1"], r"metrics: found \['accuracy'\], asked for \['macro_f1'\]"),
    ],
)
def test_columns_and_metrics_make_other_results(
    tiny_model: Path, tmp_path: Path, own: list[str], changed: list[str], message: str
) -> None:
    given = [*own, "--text_columns", "one", "--label_column", "first"]
    main(words(tiny_model, tmp_path / "out", *given))
    with pytest.raises(FinetuneError, match=message):
        main(words(tiny_model, tmp_path / "out", *given, *changed))


def test_rows_of_one_method_alone(tiny_model: Path, tiny_tasks: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "method: [finetune, linear]\nmethods:\n"
        "  finetune: {max_train_samples: 24}\n"
        "  linear: {max_train_samples: 16, max_eval_samples: 8}\n"
    )
    more = ["--config", config, "--task_name", "library", "--data_dir", tiny_tasks]
    main(words(tiny_model, tmp_path / "out", *more))
    found = {
        method: json.loads(
            (tmp_path / f"out/library/{method}/seed-42/all_results.json").read_text()
        )
        for method in ("finetune", "linear")
    }
    assert [found[m]["train_samples"] for m in ("finetune", "linear")] == [24, 16]
    assert found["linear"]["eval_samples"] == 8 < found["finetune"]["eval_samples"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("methods: {mask: {model_name_or_path: m}}", r"methods\.mask: found model_name_or_path"),
        ("tasks: {rte: {output_dir: o}}", r"tasks\.rte: found output_dir, which is one for all"),
        ("seed: 1\nmax_steps: 3\nseed: 2", r"c\.yaml: seed: found in lines 1 and 3, expected once"),
        ("tasks:\n  rte: {seed: 1,\n    seed: 2}", "seed: found in lines 2 and 3"),
    ],
)
def test_what_a_config_cannot_mean(tmp_path: Path, section: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(section)
    with pytest.raises(FinetuneError, match=message):
        make_plan(["--config", str(tmp_path / "c.yaml"), "--task_name", "rte"])


def test_a_config_in_another_encoding_says_where(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes("seed: 1\n# für\n".encode("latin-1"))
    with pytest.raises(FinetuneError, match=r"c\.yaml, line 2: found a byte that isn't UTF-8"):
        make_plan(["--config", str(tmp_path / "c.yaml"), "--task_name", "rte"])


def test_merge_keys_are_no_second_ones(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "tasks:\n  a: &a {weight_decay: .1}\n  b: &b {seed: 1}\n  rte: {<<: *a, <<: *b}\n"
    )
    config = ["--config", str(tmp_path / "c.yaml"), "--model_name_or_path", "none"]
    with pytest.raises(FinetuneError, match="output_dir is missing"):
        make_plan([*config, "--task_name", "rte"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "1", "-1"], "--seed: found -1, expected 0 or more"),
        (["--learning_rate", "nan"], "--learning_rate: found nan"),
        (["--max_train_samples", "0"], "--max_train_samples: found 0, expected 1"),
        (["--max_eval_samples", "-3"], "--max_eval_samples: found -3"),
        (["--per_device_train_batch_size", "0"], "--per_device_train_batch_size: found 0"),
        (["--max_seq_length", "1"], "--max_seq_length: found 1, expected 3"),
        (["--lora_r", "0"], "--lora_r: found 0"),
        (["--lora_dropout", "1.5"], r"--lora_dropout: found 1\.5, expected below 1"),
        (["--resume_from_checkpoint", "x"], "--resume_from_checkpoint: each job resumes"),
        (["--task_name", "../rte"], r"--task_name '\.\./rte'"),
        (
            ["--load_best_model_at_end", "true", "--eval_strategy", "epoch"],
            "found --eval_strategy epoch and --save_strategy no, expected the same",
        ),
        (
            [
                *("--load_best_model_at_end", "true", "--eval_strategy", "epoch"),
                *("--save_strategy", "epoch", "--metric_for_best_model", "f1"),
            ],
            "--metric_for_best_model: found f1, expected one of loss, accuracy",
        ),
    ],
)
def test_what_no_job_can_use_is_refused_before_any(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    given = ["--task_name", "rte", "--data_dir", tiny_tasks, *flags]
    with pytest.raises(FinetuneError, match=message):
        make_plan(words(tiny_model, tmp_path / "out", *given))
    assert not (tmp_path / "out").exists()


def test_a_text_has_two_columns_at_most(tiny_model: Path, tmp_path: Path, own: list[str]) -> None:
    given = [*own, "--text_columns", "one", "two", "first", "--label_column", "second"]
    with pytest.raises(FinetuneError, match="--text_columns one two first: found 3, expected at"):
        make_plan(words(tiny_model, tmp_path / "out", *given))
    with pytest.raises(FinetuneError, match=r"rows\.csv: a file; expected a folder"):
        make_plan(words(tiny_model, tmp_path / "rows.csv", *own, "--text_columns", "one"))


def test_another_start_makes_other_results(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    start = words(tiny_model, out, "--task_name", "library", "--data_dir", tiny_tasks)
    more = ["--method", "linear", "--start_from", "library"]
    main(start)
    main([*start, *more])
    main([*start, *more])  # nothing to do
    shutil.rmtree(out / "library/finetune")
    main([*start, "--weight_decay", "0.5"])
    with pytest.raises(FinetuneError, match="start_model: found"):
        main([*start, *more])


PARENT = """
import multiprocessing, threading, time
from finetune.jobs.sweep import _end_with_parent

def work(connection):
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection.send("running")
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=work, args=(there,))
    child.start()
    here.recv()
    print(child.pid, flush=True)
    time.sleep(600)
"""


def test_a_process_ends_with_its_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    root = Path(__file__).parents[3]
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], cwd=root, env={"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    child.wait(60)
