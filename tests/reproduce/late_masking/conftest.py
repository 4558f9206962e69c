"""A tiny experiment with the small one's variants, its data, and two of its runs, really made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from benchmarks.tiny_run import SEQ_LEN, VOCAB, write_data
from reproduce.late_masking.experiment import Experiment, read_experiment
from reproduce.late_masking.stages import CONFIGS, Options, pretrain

TINY = {
    "vanilla_tokens": 12_000,
    "seeds": [1, 2],
    "pretrain": {
        "model": {
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": SEQ_LEN + 2,
        },
        "run": {"eval_every": 8, "eval_sequences": 32, "log_every": 4, "precision": "fp32"},
    },
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Experiment]:
    """Any experiment's file, made tiny."""

    def make(file: Path) -> Experiment:
        smaller = tmp_path_factory.mktemp("config") / "tiny.yaml"
        smaller.write_text(yaml.safe_dump({"extends": str(file)} | TINY))
        return read_experiment(smaller)

    return make


@pytest.fixture(scope="session")
def experiment(tiny: Callable[[Path], Experiment]) -> Experiment:
    return tiny(CONFIGS / "late_masking_small.yaml")


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with data: rows of a Markov chain, a tokenizer that loads."""
    folder = tmp_path_factory.mktemp("out")
    data = write_data(folder / "data")
    special = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
    words = [*special.values(), *(f"w{index}" for index in range(4, VOCAB - 1)), "<mask>"]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([*special.values(), "<mask>"])
    tokenizer.save(str(data / "tokenizer.json"))
    names = special | {"cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    config = {f"{name}_token": token for name, token in names.items()}
    (data / "tokenizer_config.json").write_text(
        json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    manifest = json.loads((data / "manifest.json").read_text())
    content = (data / "tokenizer.json").read_bytes()
    manifest["tokenizer_sha256"] = hashlib.sha256(content).hexdigest()
    manifest |= {"config": {"sources": []}, "counts": {"sources": {"chain": {}}}}
    (data / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="session")
def options(experiment: Experiment, out: Path) -> Options:
    return Options(
        experiment=experiment, output_dir=out, corpus=out, data_dir=None,
        only=["vanilla_15", "paper_78"], seeds=None, parallel=2, page=out / "reproduction.md",
    )  # fmt: skip


@pytest.fixture(scope="session")
def pretrained(options: Options) -> Options:
    """The two variants of the claim, one seed, pretrained by the stage itself."""
    options.experiment.seeds[:] = [1]
    try:
        pretrain(options)
    finally:
        options.experiment.seeds[:] = [1, 2]
    return options
