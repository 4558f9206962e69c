"""`python -m finetune.maskfile`: what it tells agrees with the bits; damage is told."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from finetune.errors import FinetuneError
from finetune.maskfile import main
from finetune.masks.folder import MaskFolder


def bits_of(folder: Path) -> dict[str, np.ndarray]:
    return dict(MaskFolder.open(folder).masks())


def test_info(make_mask: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_mask("two", 3)
    main(["info", str(folder)])
    out = capsys.readouterr().out
    masks = bits_of(folder)
    count = sum(mask.size for mask in masks.values())
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    assert f"{len(masks)} of {count:,} bits, {zeros / count:.2%} zeros" in out
    assert "task two, labels a, b, c" in out
    for name, mask in masks.items():
        assert any(name in line and f"{(~mask).mean():.2%}" in line for line in out.splitlines())


def test_diff(make_mask: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folders = [make_mask("two", seed, name=f"s{seed}") for seed in (1, 2)]
    main(["diff", *map(str, folders)])
    out = capsys.readouterr().out
    first, second = map(bits_of, folders)
    for name, mask in first.items():
        share = (mask != second[name]).mean()
        line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
        assert f"{share:.3%}" in line
    main(["diff", str(folders[0]), str(folders[0])])
    assert capsys.readouterr().out.splitlines()[-1].split() == ["all", "0.000%"]


def test_convert_there_and_back(make_mask: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_mask("tags", 2)
    main(["convert", str(folder), str(tmp_path / "bits"), "--encoding", "bits"])
    main(["convert", str(tmp_path / "bits"), str(tmp_path / "gaps")])
    names = ("adapter_model.safetensors", "adapter_config.json")
    original, again = (
        [(path / name).read_bytes() for name in names] for path in (folder, tmp_path / "gaps")
    )
    assert original[0] == again[0]
    assert json.loads(original[1]) == json.loads(again[1])
    bits = load_file(tmp_path / "bits" / names[0])
    for name, mask in bits_of(folder).items():
        stored = bits[f"base_model.model.{name}.mask_bits"]
        assert np.array_equal(stored, np.packbits(mask.ravel(), bitorder="little"))
    with pytest.raises(FinetuneError, match="isn't empty"):
        main(["convert", str(folder), str(tmp_path / "gaps")])


def test_damage_is_told(make_mask: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_mask("one", encoding="bits")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(name for name in tensors if name.endswith(".mask_bits"))
    tensors[key] = tensors[key].copy()
    tensors[key][0] ^= 4  # one flipped bit
    save_file(tensors, file)
    with pytest.raises(FinetuneError, match="holds other masks than"):
        main(["info", str(folder)])
    del tensors[key]
    save_file(tensors, file)
    with pytest.raises(FinetuneError, match=r"found masks of 13 layers.*names 14"):
        main(["info", str(folder)])
    file.write_bytes(b"nothing")
    with pytest.raises(FinetuneError, match=r"cut off or damaged"):
        main(["info", str(folder)])
    with pytest.raises(FinetuneError, match="so not a mask"):
        main(["info", str(tmp_path / "none")])
    (folder / "adapter_config.json").write_text('{"peft_type": "MASK", "binarizer": "x"}')
    with pytest.raises(FinetuneError, match=r"adapter_config\.json: binarizer: found 'x'"):
        main(["info", str(folder)])


def test_masks_of_different_weights_are_not_compared(
    make_mask: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = make_mask("one"), make_mask("two")
    path = second / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_sha256": "0" * 64}))
    with pytest.raises(FinetuneError, match=f"different weights.*\n.*{config['base_sha256']}"):
        main(["diff", str(first), str(second)])
