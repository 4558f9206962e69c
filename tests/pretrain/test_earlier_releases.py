"""What earlier releases wrote: configs with `norm`, checkpoints, exported folders."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pretrain.config import PretrainConfig
from pretrain.config_parser import load_config, parse_args
from pretrain.data import ShardFolder
from pretrain.errors import PretrainError
from pretrain.export import export, load
from pretrain.fault_tolerance.run_folder import RunFolder, open_checkpoint
from pretrain.main import resolve
from pretrain.model import LateMaskModel

H, LAYERS, FEED_FORWARD, VOCAB, PADDED, POSITIONS = 8, 2, 16, 50, 64, 34


def write_safetensors(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """The format's bytes: length of the header, header, fp32 content."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"} | metadata}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        shape = list(tensor.shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    content = b"".join(tensor.tobytes() for tensor in tensors.values())
    file.write_bytes(struct.pack("<Q", len(text)) + text + content)


def former_weights(pre: bool) -> dict[str, np.ndarray]:
    """By the names and in the shapes of the first release."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "mask_embedding": (H,),
        "word_embeddings.weight": (PADDED, H),
        "position_embeddings.weight": (POSITIONS, H),
        "embedding_norm.weight": (H,),
        "embedding_norm.bias": (H,),
    }
    for layer in [f"layers.{i}" for i in range(LAYERS)] + ["late_layers.0"]:
        shapes |= {
            f"{layer}.qkv.weight": (3 * H, H),
            f"{layer}.qkv.bias": (3 * H,),
            f"{layer}.attention_output.weight": (H, H),
            f"{layer}.attention_output.bias": (H,),
            f"{layer}.attention_norm.weight": (H,),
            f"{layer}.attention_norm.bias": (H,),
            f"{layer}.intermediate.weight": (FEED_FORWARD, H),
            f"{layer}.intermediate.bias": (FEED_FORWARD,),
            f"{layer}.output.weight": (H, FEED_FORWARD),
            f"{layer}.output.bias": (H,),
            f"{layer}.output_norm.weight": (H,),
            f"{layer}.output_norm.bias": (H,),
        }
    for norm in ("final_norm", "late_norm") if pre else ():
        shapes |= {f"{norm}.weight": (H,), f"{norm}.bias": (H,)}
    shapes |= {
        "head.bias": (PADDED,),
        "head.dense.weight": (H, H),
        "head.dense.bias": (H,),
        "head.norm.weight": (H,),
        "head.norm.bias": (H,),
    }
    weights = {n: rng.normal(size=s, scale=0.3).astype(np.float32) for n, s in shapes.items()}
    weights["word_embeddings.weight"][VOCAB:] = 0
    weights["head.bias"][VOCAB:] = -1e4
    return weights


@pytest.fixture(params=["post", "pre"])
def former_run(
    request: pytest.FixtureRequest, tmp_path: Path, shard_folder: Path
) -> tuple[Path, dict[str, np.ndarray]]:
    """A run folder with one checkpoint, and its weights."""
    run, weights = tmp_path / "run", former_weights(request.param == "pre")
    folder = run / "checkpoints/step-00000003"
    folder.mkdir(parents=True)
    config = {
        "data": {"path": str(shard_folder), "global_batch_size": 16, "micro_batch_size": 4},
        "run": {"output_dir": str(run)},
        "budget": {"steps": 12},
        "masking": {"insert_layer": 1, "late_layers": 1, "late_positions": "table"},
        "optimizer": {"lr": 1e-3, "lower_warmup": 0.4},
        "model": {
            "hidden_size": H,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "intermediate_size": FEED_FORWARD,
            "max_position_embeddings": POSITIONS,
            "layer_norm_eps": 1e-5,
            "norm": request.param,
            "position_init": "neighbours",
            "unigram_bias": True,
            "dropout": 0.1,
            "vocab_size": VOCAB,
        },
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    part = folder / "part-00000-of-00001.safetensors"
    write_safetensors(part, {f"weight/{n}@0": w.reshape(-1) for n, w in weights.items()}, {})
    state = {
        "format": "latemask-checkpoint",
        "version": 2,
        "progress": {"step": 3, "sequences": 48, "tokens": 1536, "flops": 1e6, "hours": 0.1},
        "shapes": {name: list(weight.shape) for name, weight in weights.items()},
        "adam_steps": 3,
        "parts": {part.name: {"bytes": part.stat().st_size, "sha256": ""}},
    }
    (folder / "state.json").write_text(json.dumps(state))
    return run, weights


def test_a_checkpoint_is_read(former_run: tuple[Path, dict[str, np.ndarray]]) -> None:
    run, weights = former_run
    config = load_config(run / "config.yaml")
    assert config.model.architecture == (
        "roberta-prelayernorm" if "final_norm.weight" in weights else "roberta"
    )
    model = LateMaskModel(config.model, config.masking)
    open_checkpoint(run).load_into(model)
    with torch.no_grad():
        types = model.get_parameter("token_type_embeddings.weight")
        types += 1
    open_checkpoint(run).load_into(model)
    for name, parameter in model.named_parameters():
        expected = weights.get(name, np.zeros((1, H)))
        assert np.array_equal(parameter.detach().numpy(), expected), name
    RunFolder(run).claim(config)  # the same command resumes it
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert not {"norm", "position_init", "unigram_bias"} & written["model"].keys()
    assert "lower_warmup" not in written["optimizer"]


def test_an_engine_finds_zeros_for_the_token_type(
    former_run: tuple[Path, dict[str, np.ndarray]],
) -> None:
    checkpoint = open_checkpoint(former_run[0])
    name = "token_type_embeddings.weight"
    assert checkpoint.kinds(name) == ["weight"]  # the engine sets moments that it lacks to zero
    assert torch.equal(checkpoint.read("weight", name, 3, 4), torch.zeros(4))
    with pytest.raises(KeyError):
        checkpoint.read("weight", "layers.9.qkv.weight", 0, 1)


def test_a_run_without_token_ids_in_its_config_resumes(
    exported: Callable[..., tuple[LateMaskModel, Path]], tiny_config: Callable[..., PretrainConfig]
) -> None:
    _, hf = exported()
    file = hf.parent / "config.yaml"
    content = yaml.safe_load(file.read_text())
    former = {k: v for k, v in content["model"].items() if not k.endswith("_token_id")}
    assert len(former) == len(content["model"]) - 4
    file.write_text(yaml.safe_dump(content | {"model": former}))
    config = tiny_config("--model.initializer_range", "0.2")
    config = resolve(config, ShardFolder(config.data.path))
    RunFolder(hf.parent).check_config(config)
    assert load_config(file) == config


def test_an_exported_folder_is_read(
    former_run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    run, weights = former_run
    pre = "final_norm.weight" in weights
    hf = tmp_path / "hf"
    hf.mkdir()
    kind = "roberta-prelayernorm" if pre else "roberta"
    stock = {
        "embeddings.word_embeddings.weight": weights["word_embeddings.weight"][:VOCAB],
        "embeddings.position_embeddings.weight": weights["position_embeddings.weight"],
        "embeddings.token_type_embeddings.weight": np.zeros((1, H), np.float32),
    }
    modules = {
        "attention.output.dense": "attention_output",
        "attention.LayerNorm" if pre else "attention.output.LayerNorm": "attention_norm",
        "intermediate.dense": "intermediate",
        "output.dense": "output",
        "intermediate.LayerNorm" if pre else "output.LayerNorm": "output_norm",
    }
    for suffix in ("weight", "bias"):
        stock[f"embeddings.LayerNorm.{suffix}"] = weights[f"embedding_norm.{suffix}"]
        if pre:
            stock[f"LayerNorm.{suffix}"] = weights[f"final_norm.{suffix}"]
        for index in range(LAYERS):
            three = np.split(weights[f"layers.{index}.qkv.{suffix}"], 3)
            for part, tensor in zip(("query", "key", "value"), three, strict=True):
                stock[f"encoder.layer.{index}.attention.self.{part}.{suffix}"] = tensor
            for theirs, ours in modules.items():
                stock[f"encoder.layer.{index}.{theirs}.{suffix}"] = weights[
                    f"layers.{index}.{ours}.{suffix}"
                ]
    write_safetensors(hf / "model.safetensors", stock, {})
    late = {n: w for n, w in weights.items() if n.startswith(("late_", "mask_embedding", "head."))}
    masking = {
        "rate": 0.5,
        "insert_layer": 1,
        "late_layers": 1,
        "late_positions": "table",
        "schedule": [],
    }
    metadata = {"masking": json.dumps(masking), "step": "3"}
    write_safetensors(hf / "late_mask.safetensors", late, metadata)
    (hf / "config.json").write_text(
        json.dumps(
            {
                "model_type": kind,
                "vocab_size": VOCAB,
                "hidden_size": H,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": 2,
                "intermediate_size": FEED_FORWARD,
                "max_position_embeddings": POSITIONS,
                "layer_norm_eps": 1e-5,
                "type_vocab_size": 1,
                "pad_token_id": 1,
            }
        )
    )
    model = load(hf)
    for name, parameter in model.named_parameters():
        expected = weights.get(name, np.zeros((1, H)))
        assert np.array_equal(parameter.detach().numpy(), expected), name
    # And today's export of that run is the same, tensor for tensor.
    export(run, tmp_path / "again")
    for file, written in (("model", stock), ("late_mask", late)):
        found = load_file(tmp_path / "again" / f"{file}.safetensors")
        assert found.keys() == written.keys()
        assert all(np.array_equal(found[n].numpy(), written[n]) for n in found)


@pytest.mark.parametrize("extra", [{"architecture": "roberta"}, {}])
def test_norm_is_refused_beside_the_new_key_and_where_it_has_no_meaning(
    tmp_path: Path, extra: dict[str, str]
) -> None:
    file = tmp_path / "mine.yaml"
    norm = "pre" if extra else "both"
    file.write_text(yaml.safe_dump({"model": {"norm": norm, **extra}}))
    with pytest.raises(PretrainError, match=r"mine\.yaml: model\.norm is now model\.architecture"):
        parse_args(["--config", str(file)])


@pytest.mark.parametrize("form", ["--config FILE", "--config=FILE"])
def test_norm_in_a_file_is_read(
    tiny_config: Callable[..., PretrainConfig], tmp_path: Path, form: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"model": {"norm": "pre"}}))
    found = tiny_config(*form.replace("FILE", str(file)).split())
    assert found.model.architecture == "roberta-prelayernorm"
    assert found.model.hidden_size == 32  # of the other file


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [("model", "position_init", "neighbours"), ("optimizer", "lower_warmup", 0.4)],
)
def test_what_no_longer_counts_is_said(
    group: str,
    key: str,
    value: object,
    tiny_config: Callable[..., PretrainConfig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({group: {key: value}}))
    tiny_config("--config", str(file))
    assert f"mine.yaml: {group}.{key} = {value} is ignored" in caplog.text


def test_rotary_decoder_layers_over_a_table_are_refused(
    tiny_config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"masking": {"late_positions": "rotary"}}))
    with pytest.raises(
        PretrainError, match=r"mine\.yaml: masking\.late_positions.*hf/model.*0651273"
    ):
        tiny_config("--config", str(file))


def test_queries_have_another_name(
    tiny_config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    settings = {"late_layers": 1, "late_attention": "cross", "cross_queries": "holes"}
    file.write_text(yaml.safe_dump({"masking": settings}))
    assert tiny_config("--config", str(file)).masking.cross_queries == "masked"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.norm", "is now model.architecture"),
        ("model.position_init", "was removed"),
        ("masking.late_positions", "was removed"),
        ("optimizer.lower_warmup", "was removed"),
    ],
)
def test_former_keys_on_the_command_line_say_what_became_of_them(
    tiny_config: Callable[..., PretrainConfig], key: str, message: str
) -> None:
    with pytest.raises(PretrainError, match=rf"command line: {key} {message}"):
        tiny_config(f"--{key}", "1")
