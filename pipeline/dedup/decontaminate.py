"""Sentences of evaluation sets in the corpus: found by word n-grams that stand close together.

The index of GLUE-like TSVs holds the distinct n-grams of every sentence. A document is contaminated
by a sentence when at least `overlap` of them occur within a stretch of one and a half times its
length: so verbatim copies are found, and those with a word changed, dropped or added. N-grams of
more than `_COMMON` sentences tell nothing and aren't looked for, but count in a sentence's length.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.config import Decontamination
from pipeline.dedup.shingles import Words
from pipeline.errors import PipelineError
from pipeline.sources import files
from pipeline.store import work
from pipeline.store.folder import Folder
from pipeline.store.stored_array import reading_header

_COLUMNS = {"sentence", "sentence1", "sentence2", "question", "question1", "question2"}
_COLUMNS |= {"#1 string", "#2 string", "premise", "hypothesis"}
_COMMON = 100
_INDEX = f"{work.WORK}/decontamination.npz"


class Index(NamedTuple):
    """N-grams of evaluation sentences, and the sentences that have them."""

    tasks: np.ndarray  # str [tasks]
    task: np.ndarray  # int32 [sentences]
    needed: np.ndarray  # int32 [sentences]: n-grams that must be found
    span: np.ndarray  # int32 [sentences]: words within which they must be
    grams: np.ndarray  # uint64 [grams], sorted
    starts: np.ndarray  # int64 [grams + 1]: where each one's sentences begin
    sentences: np.ndarray  # int32


def write_index(folder: Folder, settings: Decontamination) -> None:
    """Build the index of the TSVs, unless it is there."""
    if not folder.exists(_INDEX):
        content = io.BytesIO()
        np.savez(content, **build(settings)._asdict())
        folder.write(_INDEX, content.getvalue())


def load(folder: Folder) -> Index:
    """The index that `write_index` has written."""
    return _read(folder, folder.version(_INDEX))


@lru_cache(1)
def _read(folder: Folder, version: str) -> Index:
    """Kept, since each worker reads many chunks; `version` tells another run's index."""
    with reading_header, np.load(io.BytesIO(folder.read(_INDEX))) as arrays:
        return Index(**{name: arrays[name] for name in Index._fields})


def build(settings: Decontamination) -> Index:
    """The index of all sentences of at least `min_words` words."""
    names: list[str] = []
    task: list[int] = []
    counts: list[int] = []
    words: list[int] = []
    grams: list[np.ndarray] = []
    for pattern in settings.paths:
        for file, _ in files.match(pattern, "decontamination"):
            name = Path(file).parent.name
            if name not in names:
                names.append(name)
            for sentence in sorted(set(sentences(file))):
                found = Words(sentence)
                if found.weight >= settings.min_words:
                    distinct = np.unique(found.ngrams(settings.ngram))
                    task.append(names.index(name))
                    counts.append(len(distinct))
                    words.append(len(found))
                    grams.append(distinct)
    if not task:
        raise PipelineError(
            f"decontamination.paths: no sentence of {settings.min_words} words in {settings.paths}"
        )
    of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    flat = np.concatenate(grams)
    order = np.lexsort((of, flat))
    flat, of = flat[order], of[order]
    distinct, repeats = np.unique(flat, return_counts=True)
    telling = repeats <= _COMMON
    return Index(
        tasks=np.array(names),
        task=np.array(task, np.int32),
        needed=np.ceil(settings.overlap * np.array(counts)).clip(1).astype(np.int32),
        span=np.array(words, np.int32) * 3 // 2,
        grams=distinct[telling],
        starts=np.concatenate([[0], np.cumsum(repeats[telling])]),
        sentences=of[np.repeat(telling, repeats)],
    )


def sentences(path: str) -> list[str]:
    """The texts of a TSV in GLUE's layout: its known columns, or the last where no header is."""
    lines = [line.decode("utf-8-sig", "replace").rstrip("\r\n") for line in files.lines(path)]
    header = [name.strip().lower() for name in lines[0].split("\t")] if lines else []
    columns = [i for i, name in enumerate(header) if name in _COLUMNS]
    rows = [line.split("\t") for line in (lines[1:] if columns else lines)]
    return [row[i] for row in rows for i in columns or [-1] if i < len(row)]


def contaminated_by(text: str, index: Index, ngram: int) -> list[str]:
    """The tasks that a text holds a sentence of, sorted; mostly none."""
    codes = Words(text).ngrams(ngram)
    place = np.searchsorted(index.grams, codes)
    place[place == len(index.grams)] = 0
    at = np.flatnonzero(index.grams[place] == codes)
    if not len(at):
        return []
    first, count = index.starts[place[at]], np.diff(index.starts)[place[at]]
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    sentence = index.sentences[np.repeat(first, count) + within]
    position = np.repeat(at, count)
    order = np.lexsort((position, sentence))
    sentence, position = sentence[order], position[order]
    last = np.arange(len(sentence)) + index.needed[sentence] - 1
    possible = np.flatnonzero(last < len(sentence))
    last = last[possible]
    hit = (sentence[last] == sentence[possible]) & (
        position[last] - position[possible] <= index.span[sentence[possible]]
    )
    found = {
        int(sentence[i])
        for i, j in zip(possible[hit], last[hit], strict=True)
        if len(set(codes[position[i : j + 1]].tolist())) > j - i  # "on and on and on" is one n-gram
    }
    return sorted({str(index.tasks[index.task[s]]) for s in found})
