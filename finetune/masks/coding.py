"""Masks as bytes, two ways (section C of docs/formats.md).

`bits`: a mask of n elements is `ceil(n / 8)` bytes, its elements in row-major order, the first in
the lowest bit of the first byte (`numpy.packbits`, little). n bits, whatever the mask.

`gaps`: the positions of its zeros (or of its ones, where those are fewer), each as the number of
elements since the one before, a byte each (255 says: 255 more, and no position), deflated with
Huffman codes only. Gaps of independent zeros are geometric, and a Huffman code of them comes
within about 1 % of n H(p) bits for any p; docs/masks.md has the measurements. The container
is zlib's, so the payload carries its own checksum.

Files come from strangers, too: what is decoded takes the memory that a mask of n elements takes,
whatever the payload says.
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
    """Inverse of `pack_positions`: ascending int32 positions below `count`, itself an int32."""
    symbols = np.frombuffer(_inflate(coded, count, name), np.uint8)
    ends = symbols != ESCAPE
    # A symbol below 255 also steps over the position itself. The sum is an int64.
    last = int(symbols.sum(dtype=np.int64)) + int(np.count_nonzero(ends)) - 1
    if last >= count:
        raise FinetuneError(
            f"Mask {name}: found position {last}, expected less than {count}. {DAMAGED}"
        )
    steps = np.cumsum(symbols, dtype=np.int32)
    steps += np.cumsum(ends, dtype=np.int32)
    positions = steps[ends]
    positions -= 1
    return positions


def _inflate(coded: np.ndarray, count: int, name: str) -> bytes:
    """The symbols in `coded`: no more than `count`, since each steps over one element at least."""
    if coded.dtype != np.uint8:
        raise FinetuneError(f"Mask {name}: found {coded.dtype}, expected bytes. {DAMAGED}")
    decoder = zlib.decompressobj()
    try:
        symbols = decoder.decompress(coded.tobytes(), count + 1)
    except zlib.error as error:
        raise FinetuneError(f"Mask {name}: {error}. {DAMAGED}") from None
    if len(symbols) > count:
        raise FinetuneError(
            f"Mask {name}: found more than {count} gaps, expected no more than weights. {DAMAGED}"
        )
    if not decoder.eof or decoder.unused_data:
        where = "before" if decoder.eof else "after"
        raise FinetuneError(f"Mask {name}: the stream ends {where} the file does. {DAMAGED}")
    return symbols


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
    positions = unpack_positions(coded, count, name)
    mask = np.full(count, kind == "zeros")
    mask[positions] = kind == "ones"
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
