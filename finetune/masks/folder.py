"""A mask folder read without a model: what `adapter_config.json` and the tensor file hold."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from finetune.errors import FinetuneError
from finetune.files import write_json
from finetune.masks.coding import decode, dropped, encode, pack_bits
from finetune.masks.config import MaskConfig
from finetune.masks.method import WRAPPED, add_to_digest, as_bytes, other_masks

CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"
CODINGS = ("zeros", "ones", "bits")


@dataclass(frozen=True)
class MaskFolder:
    """Names and shapes are known after opening; masks are decoded one at a time, on demand."""

    path: Path
    config: MaskConfig
    kinds: dict[str, str]

    @classmethod
    def open(cls, path: Path | str) -> "MaskFolder":
        """Check that both files are whole and belong together; FinetuneError says what is wrong."""
        path = Path(path)
        config = read_config(path)
        found = {}
        with _tensors(path) as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                name, _, kind = key.removeprefix(WRAPPED).rpartition(".mask_")
                if kind in CODINGS:
                    found[name] = kind
        shapes = config.shapes or {}
        absent = sorted(shapes.keys() - found.keys()) or sorted(found.keys() - shapes.keys())
        if absent or not found:
            scores = " It holds scores, to train on from." if config.stores_scores else ""
            raise FinetuneError(
                f"{path / TENSOR_FILE}: found masks of {len(found)} layers, {CONFIG_FILE} names "
                f"{len(shapes)}; first without its other half: {absent[:1]}.{scores}"
            )
        return cls(path, config, dict(sorted(found.items())))

    @property
    def name(self) -> str:
        """The task, or else the folder's name."""
        return self.config.task or self.path.name

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the mask of layer `name`: its weight's, or [groups, 1] or [1, 1]."""
        assert self.config.shapes is not None
        return tuple(self.config.shapes[name])

    def coded(self) -> Iterator[tuple[str, np.ndarray]]:
        """(layer, bytes of its mask as they are stored), one at a time."""
        with _tensors(self.path) as file:
            for name, kind in self.kinds.items():
                yield name, as_bytes(file.get_tensor(f"{WRAPPED}{name}.mask_{kind}"), name)

    def masks(self) -> Iterator[tuple[str, np.ndarray]]:
        """(layer, boolean mask), one at a time, so that no more than one is held decoded."""
        for name, coded in self.coded():
            shape = self.shape(name)
            yield name, decode(self.kinds[name], coded, math.prod(shape), name).reshape(shape)

    def dropped(self, name: str, coded: np.ndarray) -> np.ndarray:
        """Positions of the zeros in the mask of layer `name`, int32."""
        return dropped(self.kinds[name], coded, math.prod(self.shape(name)), name)

    def own(self) -> dict[str, torch.Tensor]:
        """Weights and biases that the folder holds itself, by the task model's parameter names."""
        own = {}
        with _tensors(self.path) as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                for kind in ("weight", "bias"):
                    if key.endswith(f".mask_{kind}"):
                        name = key.removeprefix(WRAPPED).removesuffix(f".mask_{kind}")
                        own[f"{name}.{kind}"] = file.get_tensor(key)
        return own

    def verify(self) -> None:
        """Decode everything and compare with the hash in the config."""
        digest = hashlib.sha256()
        for name, mask in self.masks():
            add_to_digest(digest, name, pack_bits(mask).tobytes())
        if self.config.masks_sha256 != digest.hexdigest():
            raise other_masks(self.config, digest.hexdigest())

    def check_shapes(self, model: nn.Module) -> None:
        """Compare with the shapes of `model`, be it on the meta device; decodes nothing.

        FinetuneError for a mask or weight of a layer that isn't there, or is of another shape.
        """
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        for name in self.kinds:
            weight, found = shapes.get(f"{name}.weight"), self.shape(name)
            if weight is None:
                raise FinetuneError(f"{self.path}: mask {name} is of no layer of this model.")
            is_grouped = found[1] == 1 and weight[0] % found[0] == 0
            if found != weight and not is_grouped:
                raise FinetuneError(
                    f"{self.path}: mask {name} is {list(found)}, its weight {list(weight)}; the "
                    f"{CONFIG_FILE} is of another model, or damaged."
                )
        for name, tensor in self.own().items():
            if tuple(tensor.shape) != shapes.get(name) or not tensor.is_floating_point():
                raise FinetuneError(
                    f"{self.path}: {name} is {list(tensor.shape)} of {tensor.dtype}, the model's "
                    f"{list(shapes.get(name, ()))}; the labels in {CONFIG_FILE} are others."
                )

    def convert(self, path: Path, encoding: str) -> None:
        """Write the same mask to folder `path` in another encoding."""
        tensors = {}
        for parameter, tensor in self.own().items():
            name, _, kind = parameter.rpartition(".")
            tensors[f"{WRAPPED}{name}.mask_{kind}"] = tensor
        for name, mask in self.masks():
            kind, coded = encode(mask, encoding)
            tensors[f"{WRAPPED}{name}.mask_{kind}"] = torch.from_numpy(coded.copy())
        path.mkdir(parents=True, exist_ok=True)
        partial = path / f"{TENSOR_FILE}.partial"
        save_file(tensors, partial, metadata={"format": "pt"})
        partial.replace(path / TENSOR_FILE)
        content = json.loads((self.path / CONFIG_FILE).read_text(encoding="utf-8"))
        write_json(path / CONFIG_FILE, content | {"encoding": encoding})


def read_config(path: Path) -> MaskConfig:
    """The configuration of mask folder `path`; FinetuneError if it isn't one."""
    file = path / CONFIG_FILE
    if not file.is_file():
        raise FinetuneError(
            f"{path}: no {CONFIG_FILE}, so not a mask; `python -m finetune.glue --method mask` "
            "writes masks."
        )
    try:
        config = PeftConfig.from_pretrained(str(path))
    except RecursionError:
        raise FinetuneError(f"{file}: nested too deeply, expected a JSON object.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FinetuneError(f"{file}: {error}.") from error
    except FinetuneError as error:
        raise FinetuneError(f"{file}: {error}") from error
    if not isinstance(config, MaskConfig):
        raise FinetuneError(f"{file}: peft_type is {config.peft_type}, expected MASK.")
    return config


def _tensors(path: Path):  # type: ignore[no-untyped-def]
    file = path / TENSOR_FILE
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        size = f"{file.stat().st_size:,} bytes" if file.is_file() else "no file"
        raise FinetuneError(
            f"{file}: {error} ({size}). The file is cut off or damaged; copy it again."
        ) from None
