"""The tokens of a group of pieces, on disk, laid out so that a shard can read its own part alone.

`.work/tokens/00012.npy` holds all token ids of the group's kept documents, one after another,
ordered by (split, document hash); `….index.npy` says, per document, its split, hash and length in
tokens (INDEX); `….starts.npy` which tokens begin a sentence, where the packing asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import numpy as np
from sentencex import segment

from pipeline.config import Config
from pipeline.sources.records import Document
from pipeline.split import SplitName, document_hash, split_of
from pipeline.store import dropped, pieces, plans, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder
from pipeline.tokens.words import Words

INDEX = np.dtype([("hash", "u8", 2), ("length", "u4"), ("split", "u1")], align=True)
SHARDED: tuple[SplitName, ...] = ("train", "valid")
_BATCH_CHARACTERS = 1_000_000  # tokenized at once: the library needs some 100 bytes a token


def tokens_name(group: int) -> str:
    """File of a group's token ids."""
    return f"{work.WORK}/tokens/{group:05}.npy"


def index_name(group: int) -> str:
    """File of the documents whose tokens lie in `tokens_name`."""
    return f"{work.WORK}/tokens/{group:05}.index.npy"


def starts_name(group: int) -> str:
    """File of which tokens begin a sentence."""
    return f"{work.WORK}/tokens/{group:05}.starts.npy"


def tokenize_group(folder: Folder, group: int, config: Config, words: Words) -> dict[str, Any]:
    """Tokenize the kept documents of a group; the receipt, at once when it has been done before.

    The receipt's counts are documents by source: dropped as duplicates, by split, and `repeated`,
    the further copies of training documents that a weight above 1 asks for; `lengths` the number of
    documents of less than 2, 4, 8, … tokens (and no less than half of that).
    """
    path = tokens_name(group)
    sentences = config.packing.whole_sentences
    files = [path, index_name(group)] + [starts_name(group)] * sentences
    if all(receipts := [work.read_receipt(folder, file) for file in files]):
        return cast(dict[str, Any], receipts[0])
    catalog = Catalog.load(folder)
    counts: dict[str, Counter[str]] = {}
    encoded: list[tuple[np.ndarray, np.ndarray]] = []
    copies: list[tuple[int, bytes, int]] = []  # split, hash, position in `encoded`
    for piece in catalog.group(group):
        texts: list[str] = []
        for document, split, digests in _kept(folder, piece, config, catalog, counts):
            position = len(encoded) + len(texts)
            copies += [(SHARDED.index(split), digest, position) for digest in digests]
            texts.append(document.text)
        encoded += _encoded(texts, words, sentences)
    copies.sort()
    order = [position for *_, position in copies]
    index = np.zeros(len(copies), INDEX)
    index["split"] = [split for split, *_ in copies]
    hashes = b"".join(digest for _, digest, _ in copies)
    index["hash"] = np.frombuffer(hashes, ">u8").reshape(-1, 2)
    index["length"] = [len(encoded[position][0]) for position in order]
    tokens = [encoded[position][0] for position in order]
    contents = {files[1]: index, path: np.concatenate([np.empty(0, config.dtype), *tokens])}
    if sentences:
        marks = [encoded[position][1] for position in order]
        contents = {files[2]: np.concatenate([np.empty(0, bool), *marks]), **contents}
    histogram = Counter(str(2 ** len(ids).bit_length()) for ids, _ in encoded)
    facts = {"counts": counts, "lengths": histogram, "copies": len(index)}
    receipt: dict[str, Any] = {}
    for file, array in contents.items():  # the tokens last: they stand for all
        more = {**facts, "tokens": len(array)} if file == path else {}
        receipt = work.write_certified(folder, file, work.array_bytes(array), **more)
    return receipt


def _kept(
    folder: Folder, piece: int, config: Config, catalog: Catalog, counts: dict[str, Counter[str]]
) -> Iterator[tuple[Document, SplitName, list[bytes]]]:
    """Document, split and hash of every copy of the kept documents for shards; counts all."""
    chunk = (plans.load(folder) or [])[int(catalog.array["chunk"][piece])]
    weight = config.sources[chunk.source].weight
    drops = dropped.of_piece(folder, config, catalog, piece)
    for ordinal, document in enumerate(pieces.read_documents(folder, catalog.name(piece))):
        count = counts.setdefault(document.source, Counter())
        if ordinal in drops:
            count[drops[ordinal]] += 1
            continue
        digest = document_hash(document.id)
        split = split_of(digest, config.split)
        count[split] += 1
        if split == "tasks":
            continue
        copies = copies_of(document.id, weight) if split == "train" else 1
        count["repeated"] += copies - 1
        further = [document_hash(f"{document.id} copy {copy}") for copy in range(1, copies)]
        yield document, split, [digest, *further]


def _encoded(
    texts: list[str], words: Words, sentences: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(token ids, sentence starts) of every text; starts are empty unless asked for."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    start = size = 0
    for stop, text in enumerate(texts, start=1):
        size += len(text)
        if size < _BATCH_CHARACTERS and stop < len(texts):
            continue
        if sentences:
            parts = [split_sentences(text) for text in texts[start:stop]]
            ids = iter(words.encode([part for of_text in parts for part in of_text]))
            found += [_joined(list(islice(ids, len(of_text)))) for of_text in parts]
        else:
            found += [(ids, np.empty(0, bool)) for ids in words.encode(texts[start:stop])]
        start, size = stop, 0
    return found


def _joined(sentences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(token ids, sentence starts) of a text, from the ids of its sentences."""
    ids = np.concatenate(sentences)
    marks = np.zeros(len(ids), bool)
    begins = np.cumsum([0, *map(len, sentences[:-1])])
    marks[begins[begins < len(ids)]] = True
    return ids, marks


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, which they make up; each begins with the blanks before it.

    Tokenizers put a blank with the word behind it, so one by one they have the text's own tokens.
    """
    cuts = [0]
    at = 0
    for sentence in segment("en", text):
        at += len(sentence)
        end = at - len(sentence) + len(sentence.rstrip())
        if cuts[-1] < end < len(text) and sentence.strip():
            cuts.append(end)
    return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def copies_of(document_id: str, weight: float) -> int:
    """How often a training document is seen: weight rounded up or down, by a hash of its id."""
    lot = int.from_bytes(document_hash(f"copies:{document_id}")[:8], "big") / 2**64
    return max(int(weight) + (lot < weight % 1), 1)
