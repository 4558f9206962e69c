"""Masks as bits on disk, and the identity of the weights they belong to (contract C).

Format: section C of docs/formats.md. A mask [out, in] is `ceil(out * in / 8)` bytes: its elements
in row-major order, the first in the lowest bit of the first byte (`numpy.packbits`, little).
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch

from finetune.errors import FinetuneError


def pack(mask: torch.Tensor) -> torch.Tensor:
    """Boolean mask of any shape → uint8 [ceil(n / 8)] on the CPU."""
    bits = np.packbits(mask.detach().cpu().numpy().ravel(), bitorder="little")
    return torch.from_numpy(bits)


def unpack(packed: torch.Tensor, shape: torch.Size, name: str) -> torch.Tensor:
    """Inverse of `pack`: boolean mask of `shape`; a payload of another length is an error."""
    expected = -(-shape.numel() // 8)
    if packed.dtype != torch.uint8 or packed.numel() != expected:
        raise FinetuneError(
            f"Mask {name}: found {packed.numel()} elements of {packed.dtype}, expected {expected} "
            f"bytes for shape {tuple(shape)}. The file is damaged, or the model has other shapes."
        )
    bits = np.unpackbits(packed.cpu().numpy(), count=shape.numel(), bitorder="little")
    return torch.from_numpy(bits.astype(bool)).reshape(shape).to(packed.device)


def weights_sha256(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over `named` tensors sorted by name: per tensor `name dtype shape` and its bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        data = tensor.detach().cpu().contiguous()
        header = f"{name} {str(data.dtype).removeprefix('torch.')} {list(data.shape)}\n"
        digest.update(header.encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
