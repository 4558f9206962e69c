"""The tokens of a piece, on disk, laid out so that a shard can read its own part alone.

`.work/tokens/00012-000.npy` holds all token ids of the piece's kept documents, one after another,
ordered by (split, document hash); `….index.npy` says, per document, its split, hash and length in
tokens (INDEX); `….starts.npy` which tokens begin a sentence, where the packing asks for it.

`cut` decides where one shard ends and the next begins: each holds a range of hashes, chosen so
that all have equally many tokens, to within a document or a 2^20th of the corpus.
"""

from __future__ import annotations

import io
from collections import Counter
from itertools import islice
from typing import Any, NamedTuple, cast

import numpy as np
from sentencex import segment

from pipeline.config import Config
from pipeline.split import SplitName, document_hash, split_of
from pipeline.store import pieces, plans, work
from pipeline.store.folder import Folder
from pipeline.tokens.words import Words

INDEX = np.dtype([("split", "u1"), ("hash", "u8", 2), ("length", "u4")])
_BUCKETS = 1 << 20  # of hash space, in which tokens are counted for `cut`
# A shard leaves up to a sequence of tokens over: with fewer sequences, too much of a corpus.
_SEQUENCES_PER_SHARD = 8
_BATCH_CHARACTERS = 1_000_000  # tokenized at once: the library needs some 100 bytes a token
SHARD_BOUNDS = f"{work.WORK}/cuts.json"  # where each begins
_SHARDED: tuple[SplitName, ...] = ("train", "valid")


def tokens_name(piece: str) -> str:
    """File of a piece's token ids."""
    return f"{work.WORK}/tokens/{piece}.npy"


def index_name(piece: str) -> str:
    """File of where each document lies in `tokens_name`."""
    return f"{work.WORK}/tokens/{piece}.index.npy"


def starts_name(piece: str) -> str:
    """File of which tokens begin a sentence."""
    return f"{work.WORK}/tokens/{piece}.starts.npy"


def tokenize_piece(folder: Folder, piece: str, config: Config, words: Words) -> dict[str, Any]:
    """Tokenize the kept documents of a piece; the receipt, at once when it has been done before.

    The receipt's counts are documents by source: dropped as duplicates, by split, and `repeated`,
    the further copies of training documents that a weight above 1 asks for; `lengths` the number of
    documents of less than 2, 4, 8, … tokens (and no less than half of that).
    """
    tokens = tokens_name(piece)
    sentences = config.packing.whole_sentences
    files = [tokens, index_name(piece)] + [starts_name(piece)] * sentences
    if all(receipts := [work.read_receipt(folder, file) for file in files]):
        return cast(dict[str, Any], receipts[0])
    chunk = (plans.load(folder) or [])[int(piece.split("-")[0])]
    weight = config.sources[chunk.source].weight
    counts: dict[str, Counter[str]] = {}
    texts: list[str] = []
    places: list[tuple[int, bytes, int]] = []  # split, hash, position in `texts`
    drops = pieces.dropped(folder, piece)
    for ordinal, document in enumerate(pieces.read_documents(folder, piece)):
        count = counts.setdefault(document.source, Counter())
        if ordinal in drops:
            count[drops[ordinal]] += 1
            continue
        split = split_of(document_hash(document.id), config.split)
        count[split] += 1
        if split == "tasks":
            continue
        copies = copies_of(document.id, weight) if split == "train" else 1
        count["repeated"] += copies - 1
        for copy in range(copies):
            digest = document_hash(document.id if copy == 0 else f"{document.id} copy {copy}")
            places.append((_SHARDED.index(split), digest, len(texts)))
        texts.append(document.text)
    encoded = _encoded(texts, words, sentences)
    places.sort()
    index = np.zeros(len(places), INDEX)
    index["split"] = [split for split, *_ in places]
    digests = b"".join(digest for _, digest, _ in places)
    index["hash"] = np.frombuffer(digests, ">u8").reshape(-1, 2)
    index["length"] = [len(encoded[at][0]) for *_, at in places]
    flat = [encoded[at][0] for *_, at in places]
    arrays = {files[1]: index, tokens: np.concatenate([np.empty(0, config.dtype), *flat])}
    if sentences:
        marks = [encoded[at][1] for *_, at in places]
        arrays = {files[2]: np.concatenate([np.empty(0, bool), *marks]), **arrays}
    histogram = Counter(str(2 ** len(ids).bit_length()) for ids, _ in encoded)
    facts = {"counts": counts, "lengths": histogram, "copies": len(index)}
    receipt: dict[str, Any] = {}
    for file, array in arrays.items():  # the tokens last: they stand for all
        content = io.BytesIO()
        np.save(content, array)
        more = {**facts, "tokens": len(array)} if file == tokens else {}
        receipt = work.write_certified(folder, file, content.getvalue(), **more)
    return receipt


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


def cut(folder: Folder, names: list[str], config: Config) -> None:
    """Write where shards begin: `.work/cuts.json`, {split: [first bucket of shards 1, …]}.

    There are as many shards as `shards` says, or as the tokens are enough for.
    """
    histogram = np.zeros((len(_SHARDED), _BUCKETS), np.int64)
    for name in names:
        index = folder.array(index_name(name))[:]
        np.add.at(histogram, (index["split"], _bucket(index)), index["length"].astype(np.int64) + 1)
    cuts: dict[str, list[int]] = {}
    for split, counts in zip(_SHARDED, histogram, strict=True):
        ends = np.cumsum(counts)
        enough_for = int(ends[-1]) // (_SEQUENCES_PER_SHARD * max(config.seq_lens))
        of = max(1, min(_asked(config)[split], enough_for))
        wanted = ends[-1] * np.arange(1, of) / of
        cuts[split] = (np.searchsorted(ends, wanted) + 1).tolist()
    work.write_json(folder, SHARD_BOUNDS, cuts)


def shard_counts(folder: Folder, config: Config) -> dict[SplitName, int]:
    """Number of shards of each split: as `cut` has decided, or before it as asked for."""
    cuts = work.load_json(folder, SHARD_BOUNDS)
    if cuts is None:
        return _asked(config)
    return {split: len(cuts[split]) + 1 for split in _SHARDED}


def _asked(config: Config) -> dict[SplitName, int]:
    return {"train": config.shards.train, "valid": config.shards.valid}


def _bucket(index: np.ndarray) -> np.ndarray:
    """int64 [documents]: the 2^20th of the hash space that a document lies in."""
    return (index["hash"][:, 0] >> np.uint64(44)).astype(np.int64)


class ShardDocuments(NamedTuple):
    """Token ids of the documents of one shard by their hashes, and their sentence starts."""

    tokens: list[np.ndarray]
    starts: list[np.ndarray] | None


def shard_documents(
    folder: Folder, names: list[str], split: SplitName, shard: int, sentences: bool
) -> ShardDocuments:
    """The documents of one shard, ordered by document hash (then piece)."""
    cuts = [0, *work.load_json(folder, SHARD_BOUNDS)[split], _BUCKETS]
    parts: list[np.ndarray] = []
    marks: list[np.ndarray] = []
    keys: list[tuple[int, ...]] = []
    for position, name in enumerate(names):
        index = folder.array(index_name(name))[:]
        bucket = _bucket(index)
        within = (cuts[shard] <= bucket) & (bucket < cuts[shard + 1])
        mine = np.flatnonzero(within & (index["split"] == _SHARDED.index(split)))
        if not len(mine):
            continue
        ends = np.cumsum(index["length"], dtype=np.int64)
        first, stop = int(ends[mine[0]] - index["length"][mine[0]]), int(ends[mine[-1]])
        bounds = ends[mine[:-1]] - first
        tokens = np.array(folder.array(tokens_name(name))[first:stop])
        parts += np.split(tokens, bounds)
        if sentences:
            starts = np.array(folder.array(starts_name(name))[first:stop])
            marks += np.split(starts, bounds)
        keys += [(*map(int, index["hash"][at]), position, int(at)) for at in mine]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return ShardDocuments(
        [parts[i] for i in order], [marks[i] for i in order] if sentences else None
    )
