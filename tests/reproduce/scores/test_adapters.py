"""The table of adapters: what it reads from finished jobs, and that it says where masks lose."""

import json
from pathlib import Path

from finetune.jobs.arguments import Layers, make_parser
from reproduce.scores.adapter_table import report
from reproduce.scores.adapters import CONFIG, SECOND_STAGE, Stage, place_finetuned


def finish(folder: Path, accuracy: float, stored: str = "adapter_model.safetensors") -> None:
    folder.mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    (folder / "all_results.json").write_text(json.dumps({"eval_accuracy": accuracy}))
    (folder / stored).write_bytes(bytes(1000 if stored.startswith("model") else 10))


def test_both_stages_are_read_and_each_run_counts_once(tmp_path: Path) -> None:
    first = Stage(CONFIG, tmp_path / "first", {})
    second = Stage(SECOND_STAGE, tmp_path / "second", {"mask": "mask, second stage"})
    for rate, accuracy in (("5e-05", 0.7), ("0.0001", 0.9)):
        for method, by in (("finetune", 0.0), ("mask", 0.05)):
            stored = "model.safetensors" if method == "finetune" else "adapter_model.safetensors"
            folder = first.folder / f"grid/trec/{method}/lr-{rate}/seed-4"
            finish(folder, accuracy - by, stored)
    for seed in (1, 2, 3):
        finish(first.folder / f"seeds/trec/finetune/seed-{seed}", 0.9, "model.safetensors")
        finish(first.folder / f"seeds/trec/mask/seed-{seed}", 0.8 + seed / 100)
    place_finetuned(first, second, "trec")
    # Where --start_from looks: the model of the chosen rate, and those of the seeds.
    assert (second.folder / "grid/trec/finetune/seed-4").samefile(
        first.folder / "grid/trec/finetune/lr-0.0001/seed-4"
    )
    for rate in ("0.001", "0.003"):
        finish(second.folder / f"grid/trec/mask/lr-{rate}/seed-4", float(rate))
    finish(second.folder / "seeds/trec/mask/seed-1", 0.91)
    runs = [run for stage in (first, second) for run in stage.runs()]
    assert [(r["method"], r["seed"], r["learning_rate"], r["bytes"]) for r in runs] == [
        *(("finetune", seed, 1e-4, 1000) for seed in (1, 2, 3)),
        *(("mask", seed, 1e-4, 10) for seed in (1, 2, 3)),
        ("mask, second stage", 1, 0.003, 10),
    ]
    cost = [
        {"method": "finetune", "seconds": 2.0, "peak_mib": 1000.0},
        {"method": "mask", "seconds": 1.0, "peak_mib": 800.0},
    ]
    text = report({"machine": "a CPU", "grid_seed": 4, "runs": runs, "cost": cost})
    assert "| mask | 82.0 ± 1.0 (n=3) | 10 | 0.50 | 0.80 |" in text
    assert "| finetune | 5e-05, **0.0001** |" in text
    assert "- mask, trec: below finetune by 8.0 (100 times the bytes)." in text
    assert "- mask, second stage, trec: below none." in text


def test_the_configs_are_flags_of_glue_and_agree_on_what_is_equal() -> None:
    parser = make_parser()
    first, second = (Layers.read(path, parser) for path in (CONFIG, SECOND_STAGE))
    ours = {"--method", "--learning_rate"}

    def shared(words: list[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for word in words:
            if word.startswith("--"):
                current = found.setdefault(word, [])
            else:
                current.append(word)
        return {k: v for k, v in found.items() if k not in ours and "mask" not in k}

    assert shared(first.base).items() <= shared(second.base).items()
