"""An experiment on late masking: its corpus, what its runs share, variants, seeds; and the runs.

A file in `configs/reproduce/late_masking_*.yaml` holds the fields of `Experiment`, or what differs
from the file that it `extends`. Its groups are those of `python -m pipeline` and of
`pretrain/main.py`, but that the insertion layer is written as `depth`, a share of the encoder's
layers, so that one list of variants serves every size.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from jsonargparse import ArgumentParser

from pretrain.config_parser import load_config
from pretrain.data import ShardFolder
from pretrain.flops import VANILLA, training_flops
from pretrain.recipe import ModelConfig
from reproduce.errors import ReproduceError

T = TypeVar("T")

PEERS = {"ours": "huggingface_ours", "stock": "huggingface_stock"}


@dataclass(kw_only=True)
class Variant:
    """One variant, as its differences from what all runs share."""

    title: str
    """What it is, for tables."""
    compute: float = 1.0
    """Its FLOPs as a share of those of vanilla 15 %."""
    masking: dict[str, Any] = field(default_factory=dict)
    """Of pretrain/main.py, with `depth` for insert_layer."""
    model: dict[str, Any] = field(default_factory=dict)
    """Of pretrain/main.py."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """Of pretrain/main.py."""


@dataclass(kw_only=True)
class Claim:
    """A sentence to be tested: `variant` against `baseline`, seed by seed (verdicts.py)."""

    text: str
    """What is claimed."""
    paper: str
    """The paper's figure, or whose aim it is."""
    variant: str
    """Name of a variant."""
    baseline: str
    """Name of a variant; huggingface_ours and huggingface_stock are the Trainer's runs."""
    measure: Literal["loss", "score", "hours"]
    """Final validation loss; mean score of the finetuned tasks; wall-clock to the loss at which
    `reference` ends with the same seed, as a ratio."""
    limit: float
    """The claim is that the variant is worse by at most this (nats, or points of 100), or that the
    ratio is at most this."""
    tasks: list[str] = field(default_factory=list)
    """Whose mean score is meant; without: all that both were finetuned on."""


@dataclass(kw_only=True)
class Downstream:
    """Which variants are finetuned, and how."""

    variants: list[str] = field(default_factory=list)
    """Names, in the order in which they are finetuned."""
    glue: dict[str, Any] = field(default_factory=dict)
    """A config file of `python -m finetune.glue`, without model and folders."""
    left_out: str = ""
    """Tasks that are not finetuned, and why, for the record."""


@dataclass(kw_only=True)
class Experiment:
    """The variants, what they share, and what is measured and claimed of them."""

    config: str
    """Its file, for the command in the record."""
    size: str
    """In words, for the record: layers x width, tokens of vocabulary, length of sequences."""
    corpus: dict[str, Any]
    """Of python -m pipeline, without output; relative paths are looked for under --corpus."""
    vanilla_tokens: float
    """Tokens that vanilla 15 % reads: its executed FLOPs are what each variant may spend."""
    seeds: list[int]
    """Of initial weights, order of sequences, masks, dropout and finetuning."""
    pretrain: dict[str, Any]
    """What all runs share: groups of pretrain/main.py, without paths, seed and budget."""
    variants: dict[str, Variant]
    """By name, in the order in which they run: all seeds of one before the next."""
    reference: str
    """The variant that tables compare with: vanilla 15 %."""
    claims: list[Claim] = field(default_factory=list)
    """Tested in the record, in this order."""
    curves: list[str] = field(default_factory=list)
    """Variants in the picture of loss curves."""
    downstream: Downstream = field(default_factory=Downstream)
    """Finetuning."""
    diagnose: list[str] = field(default_factory=list)
    """Variants whose states, attention and gradients are measured (first seed)."""
    peer: list[str] = field(default_factory=list)
    """How Hugging Face's model starts: `ours` (the same initial weights), `stock` (its own)."""
    title: str = "Late masking, measured"
    """The record's heading."""
    note: str = ""
    """What a reader of the record has to know first: what was found, in some lines."""
    launch: dict[str, list[str]] = field(default_factory=dict)
    """For `data`, `pretrain`, `downstream` a command that takes the flags of pipeline, pretrain or
    finetune.glue and brings them into a queue; without: run here."""
    not_run: str = ""
    """Why this experiment has no results on the authors' machines."""

    def __post_init__(self) -> None:
        named = [name for claim in self.claims for name in (claim.variant, claim.baseline)]
        drawn = (*self.curves, *self.downstream.variants, *self.diagnose)
        finetuned = self.downstream.glue.get("task_name", [])
        for name in (task for claim in self.claims for task in claim.tasks):
            if name not in finetuned:
                raise ReproduceError(
                    f"claims: {name!r} is no task that is finetuned: {', '.join(finetuned)}"
                )
        for name in (self.reference, *named, *drawn):
            if name not in {*self.variants, *PEERS.values()}:
                raise ReproduceError(
                    f"{name!r} is no variant; variants: {', '.join(self.variants)}"
                )


@dataclass(frozen=True)
class Run:
    """One variant with one seed."""

    variant: str
    seed: int
    folder: Path  # of pretrain/main.py

    @property
    def name(self) -> str:
        """For logs."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def model(self) -> Path:
        """The exported model: there when the run is finished."""
        return self.folder / "hf"

    @property
    def finished(self) -> bool:
        """Whether the budget is used and the model exported."""
        return (self.model / "model.safetensors").is_file()


def read_experiment(file: Path) -> Experiment:
    """Read and check it, with what it extends; ReproduceError names the file and the key."""
    return read_yaml_as(file, Experiment)


def read_yaml_as(file: Path, kind: type[T]) -> T:
    """A YAML file, with what it extends, as a dataclass; ReproduceError names file and key."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    try:
        found = parser.instantiate(parser.parse_object(_content(file)))
        return kind(**{f.name: found[f.name] for f in fields(kind)})  # type: ignore[arg-type]
    except Exception as error:  # jsonargparse wraps what __post_init__ raises, too
        raise ReproduceError(f"{file}: {error}") from None


def _content(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ReproduceError(f"there is no {file}")
    content: dict[str, Any] = yaml.safe_load(file.read_text()) or {}
    base = content.pop("extends", None)
    return merge(_content(file.parent / base), content) if base else content


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """`second` over `first`, key by key in nested maps; anything else is replaced."""
    merged = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def settings_of(experiment: Experiment, variant: str) -> str:
    """A hash of all that decides what a run of `variant` finds, but for its seed.

    Results of other settings don't compare with those of today's (record.py). A peer has those of
    the reference, which it follows.
    """
    recipe = asdict(
        experiment.variants[experiment.reference if variant in PEERS.values() else variant]
    )
    del recipe["title"]
    pretrain = {group: dict(settings) for group, settings in experiment.pretrain.items()}
    # The records were made when model.architecture was called model.norm.
    former = {"roberta": "post", "roberta-prelayernorm": "pre"}
    if (name := pretrain.get("model", {}).get("architecture")) in former:
        del pretrain["model"]["architecture"]
        pretrain["model"]["norm"] = former[name]
    return digest(experiment.corpus, experiment.vanilla_tokens, pretrain, recipe)


def finetuning_settings(experiment: Experiment) -> str:
    """A hash of all that decides what finetuning finds, but for its seeds, which may grow."""
    glue = {key: value for key, value in experiment.downstream.glue.items() if key != "seed"}
    return digest(glue)


def digest(*settings: Any) -> str:
    """SHA-256 of values from YAML; the prefix keeps it from being read as a number."""
    text = json.dumps(settings, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def runs_of(experiment: Experiment, out: Path) -> list[Run]:
    """All runs in the order in which they are made."""
    return [
        Run(variant, seed, out / "runs" / variant / f"seed-{seed}")
        for variant in experiment.variants
        for seed in experiment.seeds
    ]


def write_config(experiment: Experiment, run: Run, out: Path) -> Path:
    """The run's whole config as a file for pretrain/main.py.

    Raises:
        PretrainError: it can't work.
        ReproduceError: the run is finished already, with other settings.
    """
    config = config_of(experiment, run, out)
    check_unchanged(run, config, out)
    file = config_file(run, out)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    load_config(file)
    return file


def check_unchanged(run: Run, config: dict[str, Any], out: Path) -> None:
    """ReproduceError if the run is finished, but with other settings than `config`, its own now."""
    file = config_file(run, out)
    if not (run.finished and file.is_file()):
        return
    # `out` may have been moved.
    paths = {"data": {"path": ""}, "run": {"output_dir": ""}}
    now, then = (merge(found, paths) for found in (config, yaml.safe_load(file.read_text())))
    if changed := sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key)):
        raise ReproduceError(
            f"{run.folder}: made with other settings than the experiment has now ({file}:"
            f" {', '.join(changed)}); move it away, or give another --output_dir"
        )


def config_file(run: Run, out: Path) -> Path:
    """Where the config lies with which the run is made."""
    return out / "configs" / run.variant / f"seed-{run.seed}.yaml"


def config_of(experiment: Experiment, run: Run, out: Path) -> dict[str, Any]:
    """All groups of pretrain/main.py."""
    data = ShardFolder(out / "data")
    variant = experiment.variants[run.variant]
    config = merge(experiment.pretrain, {
        "data": {"path": str(data.path)},
        "masking": variant.masking, "model": variant.model, "optimizer": variant.optimizer,
        "budget": {"flops": variant.compute * vanilla_flops(experiment, data)},
        "run": {"output_dir": str(run.folder), "seed": run.seed},
    })  # fmt: skip
    layers = config["model"]["num_hidden_layers"]
    masking = config["masking"] = with_insertion_layer(config["masking"], layers)
    masking["schedule"] = [with_insertion_layer(s, layers) for s in masking.get("schedule", [])]
    return config


def with_insertion_layer(masking: dict[str, Any], layers: int) -> dict[str, Any]:
    """`depth`, a share of the layers, as `insert_layer`, the nearest number of layers."""
    masking = dict(masking)
    if "depth" in masking:
        masking["insert_layer"] = round(masking.pop("depth") * layers)
    return masking


def model_of(experiment: Experiment, data: ShardFolder) -> ModelConfig:
    """The encoder that all variants share, with the vocabulary of `data`."""
    return ModelConfig(**experiment.pretrain["model"] | {"vocab_size": data.vocabulary.size})


def vanilla_flops(experiment: Experiment, data: ShardFolder) -> float:
    """Executed FLOPs of vanilla 15 % on `vanilla_tokens`: the budget of every variant."""
    model = model_of(experiment, data)
    return experiment.vanilla_tokens / data.seq_len * training_flops(model, VANILLA, data.seq_len)
