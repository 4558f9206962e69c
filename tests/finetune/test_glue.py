"""The command line end to end on a random tiny RoBERTa; each command in this process, by `main`."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from finetune.errors import FinetuneError
from finetune.glue import main
from finetune.jobs.load import load_model
from finetune.jobs.plan import make_plan
from finetune.results.table import collect

CONFIGS = Path(__file__).parents[2] / "configs" / "glue"


def command(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [
        "--model_name_or_path", str(model), "--data_dir", str(data), "--output_dir", str(out),
        "--max_seq_length", "32", "--num_train_epochs", "2", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(
    tiny_model: Path, tiny_tasks: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """Both methods, two tasks, two seeds; with predictions."""
    out = tmp_path_factory.mktemp("runs")
    # Width 16 has few bits to choose from: they need larger and more steps than a real encoder's.
    recipe = tmp_path_factory.mktemp("config") / "recipe.yaml"
    recipe.write_text(
        "methods:\n"
        "  finetune: {learning_rate: 0.01}\n"
        "  mask: {learning_rate: 0.1, initial_sparsity: 0.3}\n"
    )
    words = command(
        tiny_model, tiny_tasks, out, "--config", str(recipe),
        "--task_name", "library", "rte", "--method", "finetune", "mask", "--seed", "1", "2",
        "--per_device_train_batch_size", "8", "--num_train_epochs", "8",
        "--do_train", "--do_eval", "--do_predict",
    )  # fmt: skip
    main(words)
    return out, words


def test_a_masks_card_loads_it(runs: tuple[Path, list[str]]) -> None:
    folder = runs[0] / "library" / "mask" / "seed-1"
    card = (folder / "README.md").read_text()
    assert "- Answers: lib-blue, lib-green, lib-red\n" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    found: dict[str, Any] = {}
    exec(code, found)
    tokens = AutoTokenizer.from_pretrained(runs[1][1])(["a red list"], return_tensors="pt")
    expected = load_model(folder, runs[1][1])
    with torch.no_grad():
        logits = found["model"].eval()(**tokens).logits
        assert torch.equal(logits, expected.eval()(**tokens).logits)
    assert logits.shape == (1, 3)


@pytest.mark.parametrize("method", ["finetune", "mask"])
def test_a_job_leaves_what_run_glue_leaves(runs: tuple[Path, list[str]], method: str) -> None:
    folder = runs[0] / "library" / method / "seed-1"
    parts = [
        json.loads((folder / f"{part}_results.json").read_text()) for part in ("train", "eval")
    ]
    combined = json.loads((folder / "all_results.json").read_text())
    assert combined == parts[0] | parts[1] | {"status": "ok"}
    assert {"train_loss", "train_runtime", "train_samples"} <= set(parts[0])
    assert {"eval_accuracy", "eval_loss", "eval_runtime", "eval_samples", "epoch"} <= set(parts[1])
    assert (parts[0]["train_samples"], parts[1]["eval_samples"]) == (96, 40)
    assert 1 / 3 <= parts[1]["constant_accuracy"] < 0.5  # of three classes
    lines = (folder / "predict_results_library.txt").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == [str(index) for index in range(10)]
    assert {line.split("\t")[1] for line in lines[1:]} <= {"lib-red", "lib-blue", "lib-green"}


@pytest.mark.parametrize("method", ["finetune", "mask"])
def test_the_saved_model_gives_the_predictions_and_the_score(
    runs: tuple[Path, list[str]], tiny_model: Path, tiny_tasks: Path, method: str
) -> None:
    """Read by hand, one sentence at a time: no padding, no sorting, no Trainer."""
    folder = runs[0] / "library" / method / "seed-2"
    model = load_model(folder, str(tiny_model))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    labels = ["lib-blue", "lib-green", "lib-red"]

    def predict(file: str) -> tuple[list[str], list[list[str]]]:
        rows = [
            line.split("\t") for line in (tiny_tasks / "library" / file).read_text().split("\n")
        ]
        with torch.no_grad():
            logits = [model(**tokenizer(row[0], return_tensors="pt")).logits for row in rows[1:-1]]
        return [labels[int(value.argmax())] for value in logits], rows[1:-1]

    predictions, _ = predict("test.tsv")
    written = (folder / "predict_results_library.txt").read_text().splitlines()[1:]
    assert [line.split("\t")[1] for line in written] == predictions
    predictions, rows = predict("dev.tsv")
    accuracy = np.mean([row[1] == label for row, label in zip(rows, predictions, strict=True)])
    results = json.loads((folder / "eval_results.json").read_text())
    assert results["eval_accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("method", ["finetune", "mask"])
def test_both_methods_learn_the_first_word(runs: tuple[Path, list[str]], method: str) -> None:
    cells = {(c.task, c.method): c for c in collect(runs[0])}
    assert cells["library", method].median > 0.6  # three classes


def test_a_finetuned_folder_is_a_stock_model(runs: tuple[Path, list[str]]) -> None:
    folder = runs[0] / "rte" / "finetune" / "seed-1"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "entailment", 1: "not_entailment"}


def test_a_rerun_does_nothing_and_an_unfinished_job_is_run_again(
    runs: tuple[Path, list[str]],
) -> None:
    out, words = runs
    unfinished = out / "rte" / "mask" / "seed-2"
    mask = (unfinished / "adapter_model.safetensors").read_bytes()
    (unfinished / "all_results.json").unlink()
    (unfinished / "adapter_model.safetensors").write_bytes(b"half")
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("all_results.json")}
    main([*words, "--logging_steps", "7", "--per_device_eval_batch_size", "3"])
    for path, stamp in stamps.items():
        assert path.stat().st_mtime_ns == stamp
    assert (unfinished / "all_results.json").is_file()
    assert (unfinished / "adapter_model.safetensors").read_bytes() == mask


def test_other_settings_in_the_same_folder_are_refused(runs: tuple[Path, list[str]]) -> None:
    out, words = runs
    before = (out / "library" / "mask" / "seed-1" / "all_results.json").read_bytes()
    with pytest.raises(FinetuneError, match=r"learning_rate: found 0\.01, asked for 0\.5"):
        main([*words, "--learning_rate", "0.5"])
    assert (out / "library" / "mask" / "seed-1" / "all_results.json").read_bytes() == before


def test_config_layers(tiny_model: Path, tiny_tasks: Path, tmp_path: Path) -> None:
    """File < its methods < its tasks < command line; --config brings required flags."""
    config = tmp_path / "c.yaml"
    config.write_text(
        f"model_name_or_path: {tiny_model}\ndata_dir: {tiny_tasks}\ntask_name: [library, rte]\n"
        "method: [finetune, mask]\nseed: 3\nmax_seq_length: 32\nmax_steps: 1\nweight_decay: 0.3\n"
        "methods: {mask: {learning_rate: 0.5, initial_sparsity: 0.2}}\n"
        "tasks: {rte: {learning_rate: 0.25}}\n"
    )
    main(["--config", str(config), "--output_dir", str(tmp_path / "o"), "--weight_decay", "0.1"])

    def job(task: str, method: str) -> dict:
        path = tmp_path / "o" / task / method / "seed-3" / "job.json"
        return json.loads(path.read_text())

    assert job("library", "finetune")["learning_rate"] == 5e-5  # run_glue.py's default
    assert job("library", "mask")["learning_rate"] == 0.5
    assert job("rte", "mask")["learning_rate"] == 0.25
    assert job("rte", "mask")["mask"]["initial_sparsity"] == 0.2
    assert job("rte", "finetune")["weight_decay"] == 0.1
    assert job("library", "mask")["lr_scheduler_type"] == "constant"


@pytest.mark.parametrize("spelled", [["--config", "{}"], ["--config={}"]])
@pytest.mark.parametrize("at", [0, 99])
def test_a_config_is_read_however_it_is_spelled(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path, spelled: list[str], at: int
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"model_name_or_path: {tiny_model}\nweight_decay: 0.3\nseed: [4, 5]\n")
    words = ["--task_name", "rte", "--data_dir", str(tiny_tasks), "--output_dir", str(tmp_path)]
    words[at:at] = [word.format(config) for word in spelled]
    (jobs,) = make_plan(words).rounds
    assert [job.seed for job in jobs] == [4, 5]
    assert {job.training["weight_decay"] for job in jobs} == {0.3}
    with pytest.raises(FinetuneError, match=r"[Ee]xpected one argument"):
        make_plan(["--task_name", "rte", "--config"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task_name", "ret"], r"--task_name ret: no such task.*rte"),
        (["--task_name", "rte", "--method", "prune"], r"--method prune: expected"),
        (
            ["--task_name", "rte", "--learning_rat", "1"],
            r"--learning_rat\. Did you mean learning_rate",
        ),
        (["--task_name", "rte", "--learning_rate", "fast"], r"learning-rate: invalid float value"),
        (["--task_name", "cola"], r"CoLA/train\.tsv: No such file"),
        ([], r"--task_name is missing"),
        (
            ["--train_file", "x.tsv", "--task_name", "mine"],
            r"needs --train_file, --validation_file",
        ),
        (
            ["--task_name", "rte", "--mask_blocks", "5", "--method", "mask"],
            r"\[5\]; this encoder has",
        ),
    ],
)
def test_errors(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(FinetuneError, match=message):
        main(command(tiny_model, tiny_tasks, tmp_path / "out", *words))
    assert not list(tmp_path.rglob("*_results.json"))


def test_files_of_ones_own(tiny_model: Path, tmp_path: Path) -> None:
    """`run_glue.py`'s --train_file and so on, without a --task_name."""
    rows = [f"{first} sky,{first}" for first in ("red", "blue")] * 10
    (tmp_path / "t.csv").write_text("\n".join(["words,colour", *rows]) + "\n")
    (tmp_path / "p.jsonl").write_text('{"words": "red sea"}\n{"words": "blue sky"}\n')
    main(
        [
            *("--model_name_or_path", str(tiny_model), "--output_dir", str(tmp_path / "o")),
            *(
                "--train_file",
                str(tmp_path / "t.csv"),
                "--validation_file",
                str(tmp_path / "t.csv"),
            ),
            *("--test_file", str(tmp_path / "p.jsonl"), "--text_columns", "words"),
            *("--label_column", "colour", "--learning_rate", "0.02", "--num_train_epochs", "10"),
            *("--do_train", "--do_eval", "--do_predict", "--seed", "1"),
        ]
    )
    job = tmp_path / "o" / "custom" / "finetune" / "seed-1"
    predictions = (job / "predict_results_custom.txt").read_text()
    assert predictions == "index\tprediction\n0\tred\n1\tblue\n"
    (cell,) = collect(tmp_path / "o")
    assert (cell.task, cell.metric, cell.median) == ("custom", "accuracy", 1.0)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (["acuracy"], r"--metrics acuracy for mine: expected one of .*Did you mean accuracy\?"),
        (["accuracy", "rouge"], r"--metrics rouge for mine: expected one of accuracy, f1,"),
        (["f1"], r"--metrics f1 for mine: expected macro_f1, since there are 3 classes"),
        (["entity_f1"], r"entity_f1 for mine: expected one for --task_kind text"),
        (["accuracy", "--regression"], r"expected pearson or spearmanr, since labels are scores"),
        (["f1", "--task_kind", "tokens"], r"expected one that counts words or entities"),
    ],
)
def test_a_metric_that_cannot_be_had_is_refused_before_training(
    tiny_model: Path, tmp_path: Path, metrics: list[str], expected: str
) -> None:
    words = ["red", "sky", "sea"]
    rows = "".join(f"{word}\t{label}\n" for word, label in zip(words, "123", strict=True))
    header = "" if "tokens" in metrics else "words\tlabel\n"
    (tmp_path / "t.tsv").write_text(header + rows)
    with pytest.raises(FinetuneError, match=expected):
        main(
            [
                *("--model_name_or_path", str(tiny_model), "--task_name", "mine"),
                *("--train_file", str(tmp_path / "t.tsv"), "--text_columns", "words"),
                *("--validation_file", str(tmp_path / "t.tsv")),
                *("--output_dir", str(tmp_path / "out"), "--metrics", *metrics),
            ]
        )
    assert not (tmp_path / "out").exists()


def test_flags_of_one_method_and_task(tiny_model: Path, tiny_tasks: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "methods:\n  linear: {weight_decay: 0.2, tasks: {rte: {weight_decay: 0.4}}}\n"
        "tasks: {rte: {max_train_samples: 16, weight_decay: 0.3}}\nmax_steps: 1\n"
    )
    more = ["--config", str(config), "--task_name", "rte", "--method", "finetune", "linear"]
    main(command(tiny_model, tiny_tasks, tmp_path / "o", *more, "--seed", "1"))
    decay = {
        method: json.loads((tmp_path / "o/rte" / method / "seed-1/job.json").read_text())
        for method in ("finetune", "linear")
    }
    assert decay["finetune"]["weight_decay"] == 0.3 and decay["linear"]["weight_decay"] == 0.4
    results = json.loads((tmp_path / "o/rte/linear/seed-1/all_results.json").read_text())
    assert results["train_samples"] == 16


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("**/*.yaml")), ids=lambda path: path.name)
def test_every_config_in_the_repository_is_accepted(config: Path, tmp_path: Path) -> None:
    """Its keys, methods and tasks are known: what fails is only that there is no model."""
    none = str(tmp_path / "none")
    with pytest.raises(FinetuneError, match="No such file"):
        main(
            [
                *("--config", str(config), "--model_name_or_path", none, "--data_dir", none),
                *("--output_dir", none, "--task_name", "rte", "cola"),
            ]
        )


def test_unknown_key_in_a_config_names_file_and_nearest(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("methods: {mask: {initial_sparsty: 0.1}}\n")
    with pytest.raises(FinetuneError, match=r"c\.yaml, methods\.mask: .*initial_sparsity"):
        main(["--config", str(config), "--task_name", "rte"])


def test_a_user_error_is_one_screen_without_traceback(tiny_model: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "finetune.glue", "--model_name_or_path", str(tmp_path / "none"),
         "--task_name", "rte", "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "o")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "RTE/train.tsv" in done.stderr


@pytest.mark.parametrize("model_type", ["albert", "deberta-v2", "mpnet"])
def test_masks_and_lora_for_other_encoders(
    model_type: str, tiny_model: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    """Whatever the encoder: no table of names has to know it, and flags choose its layers."""
    fields = {
        **dict.fromkeys(("hidden_size", "embedding_size", "intermediate_size"), 16),
        **dict.fromkeys(("num_hidden_layers", "num_attention_heads"), 2),
        "vocab_size": 20,
        "max_position_embeddings": 22,
        "pad_token_id": 1,
    }
    base = tmp_path / "base"
    AutoModel.from_config(AutoConfig.for_model(model_type, **fields)).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    command = [
        *("--model_name_or_path", str(base), "--data_dir", str(tiny_tasks), "--seed", "1"),
        *("--task_name", "library", "--max_seq_length", "16", "--max_steps", "1"),
        *("--bf16", "false", "--method", "mask", "lora"),
    ]
    main([*command, "--output_dir", str(tmp_path / "default")])
    main([*command, "--output_dir", str(tmp_path / "all"), "--target_modules", "all-linear"])
    for method in ("mask", "lora"):
        folders = [tmp_path / out / "library" / method / "seed-1" for out in ("default", "all")]
        few, every = (len(load_file(f / "adapter_model.safetensors")) for f in folders)
        assert few < every or method == "mask"
        record = json.loads((folders[1] / "job.json").read_text())
        assert record[method]["target_modules"] == "all-linear"
        assert "target_modules" not in json.loads((folders[0] / "job.json").read_text())[method]


def test_what_is_printed_are_the_jobs_and_nothing_of_the_libraries(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    words = command(tiny_model, tiny_tasks, tmp_path, "--task_name", "library", "--method")
    words += ["shira", "lora", "mask", "--max_train_samples", "16", "--max_seq_length", "16"]
    done = subprocess.run(
        [sys.executable, "-m", "finetune.glue", *words, "--recompute_blocks", "1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    ours = re.compile(r"reading |task library: |library, \w+, seed 42: \d steps|job \d of 3: ")
    assert len(lines) == 8, "\n".join(lines)
    assert all(ours.match(line.partition(" ")[2]) for line in lines), "\n".join(lines)
