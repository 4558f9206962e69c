"""Masks as bytes, two ways (section C of docs/formats.md).

`bits`: a mask of n elements is `ceil(n / 8)` bytes, its elements in row-major order, the first in
the lowest bit of the first byte (`numpy.packbits`, little). n bits, whatever the mask.

`gaps`: the positions of its zeros (or of its ones, where those are fewer), each as the number of
elements since the one before, a byte each (255 says: 255 more, and no position), deflated with
Huffman codes only. Gaps of independent zeros are geometric, and a Huffman code of them comes
within about 1 % of n H(p) bits for any p; docs/masks.md has the measurements. The container
is zlib's, so the payload carries its own checksum.
"""

import zlib

import numpy as np

from finetune.errors import FinetuneError

ESCAPE = 255
DAMAGED = "The file is damaged, or the model has other shapes."


def pack_bits(mask: np.ndarray) -> np.ndarray:
    """Boolean mask of any shape → uint8 [ceil(n / 8)]."""
    return np.packbits(mask.ravel(), bitorder="little")


def unpack_bits(packed: np.ndarray, count: int, name: str) -> np.ndarray:
    """Inverse of `pack_bits`: bool [count]; a payload of another length is an error."""
    expected = -(-count // 8)
    if packed.dtype != np.uint8 or packed.size != expected:
        raise FinetuneError(
            f"Mask {name}: found {packed.size} elements of {packed.dtype}, expected {expected} "
            f"bytes for {count} weights. {DAMAGED}"
        )
    return np.unpackbits(packed, count=count, bitorder="little").astype(bool)


def pack_positions(positions: np.ndarray) -> np.ndarray:
    """Ascending positions → deflated gaps, uint8."""
    gaps = np.diff(positions, prepend=-1) - 1
    skips, rest = np.divmod(gaps, ESCAPE)
    symbols = np.full(len(gaps) + int(skips.sum()), ESCAPE, np.uint8)
    symbols[np.cumsum(skips + 1) - 1] = rest
    coder = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    return np.frombuffer(coder.compress(symbols.tobytes()) + coder.flush(), np.uint8)


def unpack_positions(coded: np.ndarray, count: int, name: str) -> np.ndarray:
    """Inverse of `pack_positions`: int32 positions below `count`."""
    try:
        symbols = np.frombuffer(zlib.decompress(coded.data), np.uint8)
    except (zlib.error, ValueError, TypeError) as error:
        raise FinetuneError(f"Mask {name}: {error}. {DAMAGED}") from None
    ends = symbols != ESCAPE
    # A symbol below 255 also steps over the position itself.
    steps = np.cumsum(symbols, dtype=np.int32)
    steps += np.cumsum(ends, dtype=np.int32)
    positions = steps[ends]
    positions -= 1
    if positions.size and positions[-1] >= count:
        raise FinetuneError(
            f"Mask {name}: found position {positions[-1]}, expected less than {count}. {DAMAGED}"
        )
    return positions


def encode(mask: np.ndarray, encoding: str) -> tuple[str, np.ndarray]:
    """The bytes, and the suffix of their tensor's name: `bits`, `zeros` or `ones`."""
    if encoding == "bits":
        return "bits", pack_bits(mask)
    flat = mask.ravel()
    kept = int(np.count_nonzero(flat))
    if 2 * kept < flat.size:
        return "ones", pack_positions(np.flatnonzero(flat))
    return "zeros", pack_positions(np.flatnonzero(~flat))


def decode(kind: str, coded: np.ndarray, count: int, name: str) -> np.ndarray:
    """The mask, bool [count], from what `encode` gave."""
    if kind == "bits":
        return unpack_bits(coded, count, name)
    mask = np.full(count, kind == "zeros")
    mask[unpack_positions(coded, count, name)] = kind == "ones"
    return mask


def dropped(kind: str, coded: np.ndarray, count: int, name: str) -> np.ndarray:
    """The positions of the zeros, int32, from what `encode` gave."""
    if kind == "zeros":
        return unpack_positions(coded, count, name)
    return np.flatnonzero(~decode(kind, coded, count, name)).astype(np.int32)


def entropy_bits(count: int, share: float) -> float:
    """n H(p): the least that `count` independent bits need on average, a share `share` of zeros."""
    if share in (0, 1):
        return 0.0
    return float(-count * (share * np.log2(share) + (1 - share) * np.log2(1 - share)))
