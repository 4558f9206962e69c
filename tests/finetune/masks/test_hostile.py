"""Mask folders that someone made up: refused with a line, in the memory that a mask takes."""

import json
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from finetune.errors import FinetuneError
from finetune.maskfile import main as maskfile
from finetune.masks.apply import load_masked
from finetune.masks.coding import decode, dropped, pack_positions
from finetune.masks.folder import MaskFolder

LAYER = "roberta.encoder.layer.1.output.dense"
KEY = f"base_model.model.{LAYER}.mask_"


def deflated(symbols: bytes) -> np.ndarray:
    return np.frombuffer(zlib.compress(symbols), np.uint8)


def peak_of(work: Callable[[], Any]) -> int:
    """Bytes that were allocated at once, and an error on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(FinetuneError, match="damaged"):
            work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("symbol", [0, 1, 254, 255])
@pytest.mark.parametrize("kind", ["zeros", "ones"])
def test_a_bomb_takes_no_more_than_the_mask(kind: str, symbol: int) -> None:
    bomb = deflated(bytes([symbol]) * 100_000_000)
    assert bomb.size < 150_000
    assert peak_of(lambda: decode(kind, bomb, 4096, "layer")) < 1_000_000


def test_gaps_past_2_to_the_31() -> None:
    """In int32 their sum is a small, positive position."""
    symbols = b"\xff" * (2**32 // 255 + 1) + b"\x07"
    with pytest.raises(FinetuneError, match="more than 4096 gaps"):
        dropped("zeros", deflated(symbols), 4096, "layer")
    count = len(symbols)
    with pytest.raises(FinetuneError, match=f"position {255 * (count - 1) + 7}, expected less"):
        dropped("zeros", deflated(symbols), count, "layer")


@given(st.binary(max_size=60), st.integers(1, 4000))
def test_whatever_the_gaps_are_positions_ascend_and_fit(symbols: bytes, count: int) -> None:
    """Against docs/formats.md, symbol by symbol."""
    position, expected = -1, []
    for symbol in symbols:
        position += 255 if symbol == 255 else symbol + 1
        expected += [position] if symbol != 255 else []
    try:
        found = dropped("zeros", deflated(symbols), count, "layer")
    except FinetuneError:
        assert position >= count
    else:
        assert position < count and found.tolist() == expected


def test_what_comes_after_the_stream_is_damage() -> None:
    coded = pack_positions(np.array([3, 5]))
    for other, where in ((np.r_[coded, coded[:1]], "before"), (coded[:-4], "after")):
        with pytest.raises(FinetuneError, match=f"ends {where} the file does"):
            dropped("zeros", other, 64, "layer")


def rewrite(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replace the tensors of LAYER's mask."""
    file = folder / "adapter_model.safetensors"
    content = {name: value for name, value in load_file(file).items() if not name.startswith(KEY)}
    save_file(content | {f"{KEY}{kind}": value for kind, value in tensors.items()}, file)


def configure(folder: Path, **fields: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


LIES = {
    "float": torch.zeros(7),
    "bf16": torch.zeros(7, dtype=torch.bfloat16),
    "int64": torch.zeros(64, dtype=torch.int64),
    "bool": torch.zeros(64, dtype=torch.bool),
}


@pytest.mark.parametrize("kind", ["zeros", "ones", "bits"])
@pytest.mark.parametrize("lie", LIES)
def test_other_types_than_bytes(
    tiny_model: Path, make_mask: Callable[..., Path], kind: str, lie: str
) -> None:
    folder = make_mask("two")
    rewrite(folder, **{kind: LIES[lie]})
    with pytest.raises(FinetuneError, match=r"output\.dense: found .*expected"):
        load_masked(MaskFolder.open(folder), str(tiny_model))
    with pytest.raises(FinetuneError, match=r"output\.dense: found .*expected"):
        maskfile(["info", str(folder)])


SHAPES = [
    [10**18, 10**18], [10**9, 10**9], [-1, -1], [0, 4], [2.5, 4], [16], [16, 32, 1], "16x32", None,
    [True, True], [[16], [32]],
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_that_no_mask_has(make_mask: Callable[..., Path], shape: object) -> None:
    folder = make_mask("two")
    shapes = json.loads((folder / "adapter_config.json").read_text())["shapes"]
    configure(folder, shapes=shapes | {LAYER: shape})
    with pytest.raises(FinetuneError, match=rf"adapter_config\.json: shapes, {LAYER}: found"):
        MaskFolder.open(folder)


@pytest.mark.parametrize("shape", [[40_000, 50_000], [32, 16], [3, 1], [1, 32]], ids=str)
def test_shapes_that_the_model_has_not(
    tiny_model: Path, make_mask: Callable[..., Path], shape: list[int]
) -> None:
    folder = make_mask("two")
    shapes = json.loads((folder / "adapter_config.json").read_text())["shapes"]
    configure(folder, shapes=shapes | {LAYER: shape})
    opened = MaskFolder.open(folder)
    work = lambda: load_masked(opened, str(tiny_model))  # noqa: E731
    assert peak_of(work) < 100_000_000


def test_labels_without_a_head_for_them(tiny_model: Path, make_mask: Callable[..., Path]) -> None:
    """A head for as many classes would take 6 GB at the width of BERT-base."""
    folder = make_mask("two")
    configure(folder, labels=[str(number) for number in range(200_000)])
    with pytest.raises(FinetuneError, match=r"out_proj.* is \[3, 16\].*\[200000, 16\]"):
        load_masked(MaskFolder.open(folder), str(tiny_model))


FIELDS = {
    "labels": [5, "ab", {"a": 1}, [1, 2]],
    "text_columns": [5, "ab", [1, 2]],
    "max_length": [0, -1, 1.5, True, "9", [9]],
    "task": [7, ["rte"]],
    "shapes": [[1, 2], "none"],
    "head_modules": ["classifier", [None]],
    "base_model_name_or_path": [3],
    "binarizer": [["threshold"], None],
    "blocks": [{"top": 2}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FIELDS.items() for value in values]
)
def test_fields_of_other_types(
    tiny_model: Path, make_mask: Callable[..., Path], name: str, value: object
) -> None:
    folder = make_mask("two")
    configure(folder, **{name: value})
    if name == "blocks":  # what is stored has its layers by name, and reads no blocks
        load_masked(MaskFolder.open(folder), str(tiny_model))
        return
    with pytest.raises(FinetuneError, match=rf"adapter_config\.json: {name}: found"):
        MaskFolder.open(folder)


def test_other_keys_and_other_files(
    tiny_model: Path, make_mask: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_mask("two")
    configure(folder, surprise={"a": [1]}, __class__="x")
    load_masked(MaskFolder.open(folder), str(tiny_model))
    file = folder / "adapter_config.json"
    for content, found in (
        ("[" * 100_000, "nested too deeply"),
        ('{"peft_type": ' * 100_000, "nested too deeply"),
        ("[1, 2]", ""),
        ("7", ""),
        ("", ""),
        ('{"peft_type": "MASK"', ""),
        ("{}", ""),
        ('{"peft_type": {"MASK": 1}}', ""),
        ('{"peft_type": "NONE"}', ""),
    ):
        file.write_text(content)
        with pytest.raises(FinetuneError, match=rf"adapter_config\.json: .*{found}"):
            MaskFolder.open(folder)
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(FinetuneError, match=r"adapter_config\.json: "):
        MaskFolder.open(folder)
