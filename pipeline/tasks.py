"""Two demo tasks in GLUE's file layout, made of the documents of the `tasks` split.

- `library`: which library does this text document? The first one or two passages of a
  docstring, from the libraries with most documents, as evenly as they can give. A passage that
  names one of the libraries is dropped.
- `same_docstring`: do the two sentences stand in one docstring? Positives are consecutive
  prose sentences of the few largest libraries. The second sentences of the negatives are those of
  other pairs, handed round so that each goes to a docstring of another library: so a sentence alone
  says nothing of the label, and topic and wording do, which is what a small encoder can learn.

Train, dev and test share no document and no sentence. Files are tab-separated without quoting, as
GLUE's are; test.tsv has labels. These are demo tasks, not GLUE.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from importlib.metadata import packages_distributions
from typing import NamedTuple

from pipeline.config import Config, Tasks
from pipeline.errors import PipelineError
from pipeline.sources.records import Document
from pipeline.split import document_hash, split_of
from pipeline.store.catalog import Catalog
from pipeline.store.dropped import kept_documents
from pipeline.store.folder import Folder

FILES = tuple(
    f"{t}/{s}.tsv" for t in ("library", "same_docstring") for s in ("train", "dev", "test")
)

MIN_SENTENCE_CHARACTERS = 60  # shorter ones ("If None, all are used.") stand anywhere
_SENTENCE_END = re.compile(r"(?<=[a-z)\]][.!?])\s+(?=[A-Z])")
_SENTENCE = re.compile(r"[A-Z][^\n\t]*[.!?]")


class Pair(NamedTuple):
    """Two consecutive sentences of one docstring."""

    first: str
    second: str
    library: str


def write(folder: Folder, config: Config) -> None:
    """Write both tasks under `folder`/tasks."""
    assert config.tasks
    catalog = Catalog.load(folder)
    documents = [
        document
        for piece in range(len(catalog))
        for document in kept_documents(folder, config, catalog, piece)
        if split_of(document_hash(document.id), config.split) == "tasks"
    ]
    documents.sort(key=lambda d: document_hash(d.id))
    for task, columns, rows in (
        ("library", "sentence\tlabel", library(documents, config.tasks)),
        (
            "same_docstring",
            "sentence1\tsentence2\tlabel",
            same_docstring(documents, config.tasks),
        ),
    ):
        for split, lines in rows.items():
            text = "\n".join([columns, *lines]) + "\n"
            folder.write(f"tasks/{task}/{split}.tsv", text.encode())


def library(documents: list[Document], tasks: Tasks) -> dict[str, list[str]]:
    """Lines `sentence<TAB>label` for train, dev and test, as even among the libraries as can be."""
    labels = _largest(documents, tasks.libraries)
    give_away = re.compile("|".join(map(re.escape, _names(labels))), re.IGNORECASE)
    sizes = {"dev": tasks.library_dev, "test": tasks.library_dev, "train": tasks.library_train}
    rows: dict[str, list[str]] = {}
    seen: set[str] = set()
    start = 0
    for split, size in sizes.items():
        stop = start + len(documents) * size // sum(sizes.values())
        examples: dict[str, list[str]] = {label: [] for label in labels}
        for document in documents[start:stop]:
            for text in _passages(document.text, tasks.max_characters):
                if document.source in examples and text not in seen and not give_away.search(text):
                    seen.add(text)
                    examples[document.source].append(text)
        start = stop
        found = sum(map(len, examples.values()))
        if found < size:
            raise PipelineError(
                f"tasks.library: {found:,} texts for {split}, {size:,} wanted; "
                "lower tasks.library_train or raise split.tasks"
            )
        rows[split] = _shuffled(_evenly(examples, size))
    return rows


def _largest(documents: list[Document], number: int) -> list[str]:
    """The libraries with most documents."""
    counts = Counter(document.source for document in documents)
    return sorted(counts, key=lambda name: (-counts[name], name))[:number]


def _evenly(examples: dict[str, list[str]], size: int) -> list[str]:
    """`size` lines; a label gives all it has before another gives more than a fair share."""
    lines: list[str] = []
    by_number = sorted(examples, key=lambda label: (len(examples[label]), label))
    for position, label in enumerate(by_number):
        fair = (size - len(lines)) // (len(by_number) - position)
        lines += [f"{text}\t{label}" for text in examples[label][:fair]]
    return lines


def same_docstring(documents: list[Document], tasks: Tasks) -> dict[str, list[str]]:
    """Lines `sentence1<TAB>sentence2<TAB>label` for train, dev and test; half of each label."""
    sizes = {
        "dev": tasks.same_docstring_dev,
        "test": tasks.same_docstring_dev,
        "train": tasks.same_docstring_train,
    }
    libraries = _largest(documents, tasks.same_docstring_libraries)
    by_document = [_pairs(d, tasks.max_characters) for d in documents if d.source in libraries]
    rows: dict[str, list[str]] = {}
    seen: set[str] = set()
    for split, size in sizes.items():
        chosen: list[Pair] = []
        per_library: Counter[str] = Counter()
        while by_document and len(chosen) < size:
            for pair in by_document.pop():
                # one with over half could not hand its sentences to other libraries
                room = per_library[pair.library] < 2 * size // 5
                if room and not seen & {pair.first, pair.second} and len(chosen) < size:
                    per_library[pair.library] += 1
                    seen |= {pair.first, pair.second}
                    chosen.append(pair)
        if len(chosen) < size:
            raise PipelineError(
                f"tasks.same_docstring: too few sentence pairs for {split} ({len(chosen)}, {size} "
                "wanted); lower tasks.same_docstring_train or raise split.tasks"
            )
        # Every other one, so that each library has as many of either label.
        chosen.sort(key=lambda pair: pair.library)
        lines = [f"{p.first}\t{p.second}\tsame" for p in chosen[::2]]
        lines += [f"{p.first}\t{p.second}\tdifferent" for p in _handed_round(chosen[1::2])]
        rows[split] = _shuffled(lines)
    return rows


def _handed_round(pairs: list[Pair]) -> list[Pair]:
    """The same first and the same second sentences, each second now at another library's first.

    Being sorted by library, and shifted by half, none meets itself unless it has over half of all.
    """
    shift = len(pairs) // 2
    handed = [
        Pair(a.first, b.second, a.library)
        for a, b in zip(pairs, pairs[shift:] + pairs[:shift], strict=True)
        if a.library != b.library
    ]
    assert len(handed) == len(pairs), "a library has more than half of the negatives"
    return handed


def _pairs(document: Document, max_characters: int) -> list[Pair]:
    """Up to four pairs of consecutive prose sentences that share none."""
    sentences = [
        sentence
        for paragraph in document.text.split("\n\n")
        for sentence in _SENTENCE_END.split(_flat(paragraph))
        if _is_sentence(sentence, max_characters)
    ]
    pairs = zip(sentences[:8:2], sentences[1:8:2], strict=False)
    return [Pair(a, b, document.source) for a, b in pairs if a != b]


def _is_sentence(text: str, max_characters: int) -> bool:
    words = text.split()
    letters = sum(map(str.isalpha, text))
    return (
        MIN_SENTENCE_CHARACTERS <= len(text) <= max_characters
        and len(words) >= 5
        and letters >= 0.7 * len(text)
        and bool(_SENTENCE.fullmatch(text))
    )


def _names(libraries: list[str]) -> list[str]:
    """Names that would give a library away: its import name and its distributions'."""
    distributions = packages_distributions()
    return sorted({n for name in libraries for n in (name, *distributions.get(name, ()))})


def _passages(text: str, max_characters: int) -> list[str]:
    """The first two stretches of the text of at most `max_characters`, cut between words."""
    wrapped = textwrap.wrap(_flat(text[: 3 * max_characters]), max_characters)
    return [passage for passage in wrapped[:2] if len(passage) >= max_characters // 3]


def _flat(text: str) -> str:
    return " ".join(text.split())


def _shuffled(lines: list[str]) -> list[str]:
    """An order that depends on the lines alone."""
    return sorted(lines, key=document_hash)
