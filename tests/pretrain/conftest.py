"""A small data set in contract A's format, written without the project's own writer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tokenizers import AddedToken, Tokenizer
from tokenizers.implementations import ByteLevelBPETokenizer

from benchmarks.tiny_run import write_shard
from pretrain.budget import Progress
from pretrain.config import PretrainConfig
from pretrain.config_parser import parse_args
from pretrain.data import ShardFolder
from pretrain.export import export
from pretrain.fault_tolerance.checkpoint import State, part_name, write_part
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.initialise import initialise
from pretrain.main import resolve
from pretrain.model import LateMaskModel
from tests.pretrain import whole_runs

SEQ_LEN = 32
WORDS = [
    "the",
    "a",
    "of",
    "array",
    "list",
    "value",
    "returns",
    "given",
    "shape",
    "number",
    "file",
    "name",
    "is",
    "to",
    "and",
    "in",
]


def _text(rng: np.random.Generator, words: int) -> str:
    # Each word is followed by one of two: there is something to learn.
    index, out = int(rng.integers(len(WORDS))), []
    for _ in range(words):
        out.append(WORDS[index])
        index = (2 * index + int(rng.integers(2))) % len(WORDS)
    return " ".join(out)


@pytest.fixture(scope="session")
def shard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 training and 64 validation rows of 32 tokens over a vocabulary of about 300."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    bpe = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    text = [_text(rng, 200) for _ in range(50)]
    bpe.train_from_iterator(text, vocab_size=290, special_tokens=specials, show_progress=False)
    bpe.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "cls_token": "<s>",
                "sep_token": "</s>",
                "pad_token": "<pad>",
                "unk_token": "<unk>",
                "mask_token": "<mask>",
            }
        )
    )
    vocab_size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    splits = {}
    for split, count, shards in (("train", 200, 2), ("valid", 64, 1)):
        stream: list[int] = []
        while len(stream) < count * (SEQ_LEN - 2):
            stream += [*bpe.encode(_text(rng, 40)).ids, 2]
        body = np.array(stream[: count * (SEQ_LEN - 2)], dtype=np.uint16).reshape(count, -1)
        rows = np.pad(body, ((0, 0), (1, 1)))
        rows[:, -1] = 2
        parts = np.array_split(rows, shards)
        infos = [
            write_shard(folder / f"{split}-{i:05d}-of-{shards:05d}.tar", part, 48)
            for i, part in enumerate(parts)
        ]
        splits[split] = {"shards": infos, "sequences": count, "tokens": rows.size}
    (folder / "manifest.json").write_text(
        json.dumps(
            {
                "format": "latemask-shards",
                "version": 1,
                "seq_len": SEQ_LEN,
                "dtype": "uint16",
                "vocab_size": vocab_size,
                "tokenizer_sha256": hashlib.sha256(
                    (folder / "tokenizer.json").read_bytes()
                ).hexdigest(),
                "splits": splits,
                "counts": {},
                "config": {"sources": [{"name": "synthetic"}]},
                "config_sha256": "",
            }
        )
    )
    return folder


@pytest.fixture(
    params=[
        *("../../x.tar", "/nowhere/x.tar", "a/b.tar", "a\\b.tar", ".hidden.tar", "..", ""),
        *("x\n.tar", "x\0.tar", "\ud800.tar", "manifest.json", "tokenizer.json"),
        *(None, 3, ["x.tar"]),
    ],
    ids=repr,
)
def refused_name(request: pytest.FixtureRequest) -> object:
    """A name that no shard may have: outside the folder, hidden, or that of another file."""
    return request.param


def _without(*path: str | int) -> Callable[[dict[str, Any]], bytes]:
    """A function that returns a manifest without the key at `path`, as bytes."""

    def remove(manifest: dict[str, Any]) -> bytes:
        entry: Any = manifest
        for key in path[:-1]:
            entry = entry[key]
        del entry[path[-1]]
        return json.dumps(manifest).encode()

    return remove


def _with(**changes: object) -> Callable[[dict[str, Any]], bytes]:
    return lambda manifest: json.dumps(manifest | changes).encode()


FIRST_SHARD = ("splits", "train", "shards", 0)


@pytest.fixture(
    params=[
        (lambda _: b"", "is not JSON"),
        (lambda _: b"<html>404</html>", "is not JSON"),
        (lambda _: b"\xff\xfe\xfd", "is not JSON"),
        (lambda _: b"[" * 100_000, "is not JSON"),
        (lambda _: b"[]", "expected an object"),
        (lambda _: b"{}", "format and version"),
        *((_without(key), key) for key in ("seq_len", "dtype", "vocab_size", "tokenizer_sha256")),
        (_without("splits"), "splits is missing, expected an object"),
        *((_without("splits", "train", key), key) for key in ("shards", "sequences", "tokens")),
        *((_without(*FIRST_SHARD, key), key) for key in ("name", "bytes", "blocks")),
        (_without(*FIRST_SHARD, "blocks", 1, "offset"), r"shards\[0\]\.blocks\[1\]\.offset"),
        (_without(*FIRST_SHARD, "blocks", 1, "sequences"), r"blocks\[1\]\.sequences is missing"),
        (_with(splits=[]), r"splits is \[\], expected an object"),
        (_with(splits={"train": 3}), r"splits\.train is 3, expected an object"),
        (_with(splits={"a\nb": 3}), r"splits\.'a\\nb' is 3, expected an object"),
        (_with(seq_len="32"), "seq_len is '32', expected a whole number"),
        (_with(seq_len=True), "seq_len is True, expected a whole number"),
        (_with(vocab_size=-1), "vocab_size is -1, expected a whole number"),
        (_with(dtype="float32"), "dtype is 'float32', expected uint16 or uint32"),
    ],
    ids=lambda param: param[1],
)
def bad_manifest(request: pytest.FixtureRequest, shard_folder: Path) -> tuple[bytes, str]:
    """The bytes of an unusable manifest, and a pattern of the error."""
    make, message = request.param
    return make(json.loads((shard_folder / "manifest.json").read_text())), message


TINY: dict[str, dict[str, object]] = {
    "data": {"global_batch_size": 16, "micro_batch_size": 4},
    "masking": {"insert_layer": 1},
    "model": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": SEQ_LEN + 2,
        "dropout": 0.1,
        "initializer_range": None,
    },
    "optimizer": {"lr": 3e-3, "gradient_clipping": 1.0},
    "budget": {"steps": 12},
    "run": {"log_every": 1, "eval_every": 6, "eval_sequences": 64, "precision": "fp32"},
}


@pytest.fixture(scope="session")
def tiny_config_file(shard_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of a run of seconds; it lacks only `run.output_dir`."""
    content = TINY | {"data": TINY["data"] | {"path": str(shard_folder)}}
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def tiny_config(tiny_config_file: Path, tmp_path: Path) -> Callable[..., PretrainConfig]:
    """The same as a config; arguments are `--group.field value` overrides."""

    def make(*overrides: str) -> PretrainConfig:
        output = ["--run.output_dir", str(tmp_path / "run")]
        return parse_args(["--config", str(tiny_config_file), *output, *overrides])

    return make


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def write_checkpoint(run: RunFolder, step: int, weights: Mapping[str, torch.Tensor]) -> Path:
    """Weights alone, in one part."""
    folder = run.checkpoints / f"step-{step:08d}"
    folder.mkdir(parents=True)
    layout = {f"weight/{name}@0": tensor.numel() for name, tensor in weights.items()}
    values = torch.cat([tensor.detach().flatten() for tensor in weights.values()])
    state = State(
        progress=Progress(step=step, sequences=16 * step),
        shapes={name: list(tensor.shape) for name, tensor in weights.items()},
        parts={part_name(0, 1): write_part(folder / part_name(0, 1), layout, values)},
    )
    state.write(folder / "state.json")
    return folder


@pytest.fixture
def exported(
    tiny_config: Callable[..., PretrainConfig],
) -> Callable[..., tuple[LateMaskModel, Path]]:
    """An initialised model of the tiny config with overrides, and the folder it is exported to."""

    def make(*overrides: str) -> tuple[LateMaskModel, Path]:
        config = tiny_config("--model.initializer_range", "0.2", *overrides)
        config = resolve(config, ShardFolder(config.data.path))
        model = LateMaskModel(config.model, config.masking)
        initialise(model, seed=0)
        run = RunFolder(config.run.output_dir)
        write_checkpoint(run, 1, dict(model.named_parameters()))
        config.save(run.path / "config.yaml")
        export(run.path, run.path / "hf")
        return model.eval(), run.path / "hf"

    return make


@pytest.fixture(scope="session")
def three_layers(tiny_config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers: [MASK]s enter below the last two."""
    content = yaml.safe_load(tiny_config_file.read_text())
    content["model"]["num_hidden_layers"] = 3
    file = tmp_path_factory.mktemp("config") / "three_layers.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory, three_layers: Path) -> Path:
    """A run of 12 steps on 2 ranks under ZeRO-1, every checkpoint kept."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    every = ("--run.save_every", "3", "--run.keep_checkpoints", "99")
    whole_runs.run(three_layers, 2, folder, *every)
    return folder


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory, three_layers: Path) -> Path:
    """A run of 12 steps on one rank."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    whole_runs.run(three_layers, 1, folder)
    return folder
