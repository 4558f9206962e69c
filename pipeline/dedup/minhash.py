"""MinHash signatures of texts (Broder 1997) and the keys of their LSH bands.

The hashing is rensa's; its R-MinHash gives unbiased estimates of Jaccard similarity from
`bands × rows` hashes.
"""

from __future__ import annotations

import hashlib

import numpy as np
from rensa import RMinHash

from pipeline.config import NearDuplicates
from pipeline.dedup.shingles import Words, mixed


def signatures(texts: list[str], settings: NearDuplicates) -> np.ndarray:
    """uint32 [texts, bands · rows]. A text of fewer than `ngram` words is one n-gram of all.

    One without words, all of signs, resembles only texts that are equal to it.
    """
    grams = []
    for text in texts:
        words = Words(text)
        found = np.unique(words.ngrams(max(min(settings.ngram, int(words.weight)), 1)))
        if not len(found):
            digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
            found = np.frombuffer(digest, "<u8")
        grams.append(found)
    ends = np.cumsum([len(g) for g in grams], dtype=np.uint64)
    permutations = settings.bands * settings.rows
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate([np.empty(0, np.uint64), *grams]),
        np.concatenate([np.zeros(1, np.uint64), ends]),
        permutations,
        settings.seed,
    )
    return np.array(matrix.to_rows(), np.uint32).reshape(len(texts), permutations)


def band_keys(signatures: np.ndarray, settings: NearDuplicates) -> np.ndarray:
    """uint64 [texts, bands]: equal where all rows of a band are equal, and the band is the same."""
    rows = signatures.astype(np.uint64).reshape(len(signatures), settings.bands, settings.rows)
    factors = np.random.default_rng(settings.seed).integers(
        0, 2**63, settings.rows, np.uint64
    ) | np.uint64(1)
    keys = (rows * factors).sum(axis=2, dtype=np.uint64)
    return mixed(keys + np.arange(settings.bands, dtype=np.uint64))
