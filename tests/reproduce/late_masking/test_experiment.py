"""Variants become configs that pretrain/main.py takes, with the FLOPs that they may spend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmarks.tiny_run import SEQ_LEN, VOCAB
from finetune.jobs.arguments import Layers, make_parser, resolve
from pretrain.masking import mask_counts
from pretrain.recipe import MaskingConfig, MaskingStage
from reproduce.errors import ReproduceError
from reproduce.late_masking.experiment import (
    Experiment,
    merge,
    read_experiment,
    runs_of,
    with_insertion_layer,
    write_config,
)
from reproduce.late_masking.stages import CONFIGS

FILES = sorted(CONFIGS.glob("late_masking_*.yaml"))
FINETUNED = [file for file in FILES if read_experiment(file).downstream.variants]


def vanilla_flops(h: int, f: int, layers: int, tokens: float) -> float:
    """Forward and backward of vanilla 15 %, written out from the methods' formulas.

    The last layer's queries and feed-forward, and the head, run at the predicted places only.
    """
    t, s, v = SEQ_LEN, round(0.15 * (SEQ_LEN - 2)), -(-VOCAB // 64) * 64
    whole = 8 * t * h * h + 4 * t * t * h + 4 * t * h * f
    last = 4 * t * h * h + 4 * s * h * h + 4 * s * t * h + 4 * s * h * f
    head = s * (2 * h * h + 2 * h * v)
    return 3 * ((layers - 1) * whole + last + head) * tokens / t


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_variant_is_a_run_of_equal_flops(
    file: Path, tiny: Callable[[Path], Experiment], out: Path, tmp_path: Path
) -> None:
    experiment = tiny(file)
    (tmp_path / "data").symlink_to(out / "data")  # `out` may hold finished runs of other settings
    gated = experiment.pretrain["model"]["architecture"] == "modernbert"  # three matrices, not two
    budget = vanilla_flops(32, 96 if gated else 64, 4, 12_000)
    for run in runs_of(experiment, tmp_path):
        if run.seed != 1:
            continue
        # It is read by pretrain/main.py's own parser before it is returned.
        config = yaml.safe_load(write_config(experiment, run, tmp_path).read_text())
        variant = experiment.variants[run.variant]
        assert config["budget"]["flops"] == pytest.approx(variant.compute * budget)
        assert config["run"]["seed"] == run.seed
        assert Path(config["run"]["output_dir"]) == run.folder
        masking = config["masking"]
        masking["schedule"] = [MaskingStage(**stage) for stage in masking["schedule"]]
        for stage in MaskingConfig(**masking).stages():
            assert mask_counts(stage, SEQ_LEN).predicted > 0


@pytest.mark.parametrize("file", FINETUNED, ids=lambda file: file.stem)
def test_its_finetuning_is_read_by_the_package_that_does_it(file: Path, tmp_path: Path) -> None:
    downstream = read_experiment(file).downstream
    config = tmp_path / "glue.yaml"
    config.write_text(yaml.safe_dump(downstream.glue))
    flags = ["--model_name_or_path", "a", "--output_dir", str(tmp_path)]
    parser = make_parser()
    layers = Layers.read(config, parser)
    for task in downstream.glue["task_name"]:
        settings = resolve(parser, layers, flags, "finetune", task)
        assert settings.seeds == downstream.glue["seed"]


def test_variants_are_what_their_names_say(experiment: Experiment) -> None:
    layers = experiment.pretrain["model"]["num_hidden_layers"]
    shared = experiment.pretrain["masking"]
    configs = {
        name: MaskingConfig(**with_insertion_layer(merge(shared, variant.masking), layers))
        for name, variant in experiment.variants.items()
        if "schedule" not in variant.masking
    }
    paper = configs["paper_78"]
    assert (paper.insert_layer, paper.late_layers, paper.rate) == (4, 2, 0.5)
    assert (paper.masked_share, paper.random_share) == (0.8, 0.1)
    assert experiment.variants["paper_78"].compute == 0.78
    vanilla = configs["vanilla_15"]
    assert (vanilla.insert_layer, vanilla.late_layers, vanilla.rate) == (0, 0, 0.15)
    grid = {
        (m.insert_layer, m.late_layers, m.late_attention)
        for name, m in configs.items()
        if m.rate == 0.5 and m.mask_embedding == "separate"
    }
    wanted = {(k, d, "self") for k in (2, 3, 4) for d in (0, 1, 2)} - {(4, 0, "self")}
    assert wanted <= grid


def test_later_files_win_key_by_key() -> None:
    first = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merge(first, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}, "d": 1}
    assert first["a"] == {"b": 1, "c": [1, 2]}


@pytest.mark.parametrize(("depth", "layers", "k"), [(0.75, 12, 9), (0.5, 24, 12), (0, 8, 0)])
def test_depth_is_a_share_of_the_layers(depth: float, layers: int, k: int) -> None:
    assert with_insertion_layer({"depth": depth, "rate": 0.4}, layers) == {
        "insert_layer": k,
        "rate": 0.4,
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"diagnose": ["vanila_15"]}, "vanila_15"),
        ({"sedes": [1]}, "sedes"),
        (
            {
                "claims": [
                    {
                        "text": "t",
                        "paper": "p",
                        "variant": "vanilla_50",
                        "baseline": "vanilla_15",
                        "measure": "score",
                        "limit": 1.0,
                        "tasks": ["post"],
                    }
                ]
            },
            "'post' is no task",
        ),
        ({"variants": {"vanilla_15": {"titel": "x"}}}, "titel"),
    ],
)
def test_a_mistake_is_named(change: dict, named: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    base = str(CONFIGS / "late_masking_small.yaml")
    file.write_text(yaml.safe_dump({"extends": base} | change))
    with pytest.raises(ReproduceError, match=rf"(?s)wrong.yaml: .*{named}"):
        read_experiment(file)
