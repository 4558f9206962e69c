from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cleaning import documents
from pipeline.config import Cleaning, Config, Source
from pipeline.sources import plan
from pipeline.split import document_hash, split_of
from pipeline.store import pieces
from pipeline.store.folder import Folder

SENTENCES = [
    f"In chapter {i} the ferryman of lock {i * 37 % 101} was late again." for i in range(90)
]


def _cleaned(config: Config) -> tuple[dict[str, Any], list[Any]]:
    folder = Folder.at(config.output)
    (chunk,) = plan(config.sources, 10**9)
    found = documents.clean_chunk(folder, chunk, config)
    return found, [d for name in found["pieces"] for d in pieces.read_documents(folder, name)]


@pytest.fixture
def books(tmp_path: Path) -> Source:
    """A long document, one that must be cut anywhere, a short one and a table."""
    texts = {
        "long": "\n\n".join(" ".join(SENTENCES[i : i + 5]) for i in range(0, 90, 5)),
        "unbroken": "abcdefghij" * 250,
        "short": "A short one, and no more.",
        "table": "1 2 3 4 " * 300,
    }
    lines = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    return Source(kind="jsonl", name="books", paths=[f"{tmp_path}/a.jsonl"])


def test_long_documents_are_cut_and_every_part_is_judged_and_counted(
    make_config: Callable[..., Config], books: Source
) -> None:
    cleaning = Cleaning(min_characters=50, max_characters=1000)
    config = make_config(sources=[books], cleaning=cleaning, chunk_bytes=10**9)
    found, kept = _cleaned(config)
    long = [d for d in kept if ":long" in d.id]
    assert [d.id for d in long][:2] == ["books/a.jsonl:long", "books/a.jsonl:long part 2"]
    assert " ".join(" ".join(d.text.split()) for d in long) == " ".join(SENTENCES)
    assert all(d.text.count("was late") % 5 == 0 for d in long)  # whole paragraphs
    assert len({split_of(document_hash(d.id), config.split) for d in long}) == 1
    unbroken = [d.text for d in kept if ":unbroken" in d.id]
    assert [len(text) for text in unbroken] == [834, 833, 833]
    counts = found["counts"]["books"]
    dropped = {"too_short": 1, "not_prose": 3}  # the table's three parts
    characters = sum(len(d.text) for d in kept)
    assert counts == {
        "read": 4,
        "cut": 3,
        "further_parts": counts["further_parts"],
        **dropped,
        "clean": len(kept),
        "characters": characters,
    }
    assert counts["read"] + counts["further_parts"] == len(kept) + sum(dropped.values())
    assert {text for _, name, text in found["examples"]["not_prose"]} == {("1 2 3 4 " * 38)[:300]}


def test_a_sample_takes_a_document_with_all_its_parts(
    make_config: Callable[..., Config], books: Source, tmp_path: Path
) -> None:
    cleaning = Cleaning(min_characters=50, max_characters=1000)

    def parts_by_document(output: str) -> Counter[str]:
        config = make_config(output=tmp_path / output, sources=[books], cleaning=cleaning)
        return Counter(d.id.split(" part ")[0] for d in _cleaned(config)[1])

    whole = parts_by_document("whole")
    books.weight = 0.6
    sample = parts_by_document("sample")
    assert 0 < len(sample) < len(whole)
    assert sample.items() <= whole.items()


TEXTS = [
    f"Sentence number {i} is long enough to be kept by every rule of cleaning." for i in range(9)
]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return Source(kind="jsonl", name="s", paths=[str(path)])


def test_a_text_that_cannot_be_cleaned_is_rejected_alone(
    source: Source, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = documents.clean

    def clean(text: str, *more: object) -> object:
        if "number 5" in text:
            raise RecursionError("too deep")
        return plain(text, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(documents, "clean", clean)
    config = make_config(sources=[source], chunk_bytes=10**6)
    found, kept = _cleaned(config)
    assert [d.text for d in kept] == TEXTS[:5] + TEXTS[6:]
    assert found["counts"]["s"]["read"] == found["counts"]["s"]["clean"] == 8
    (line,) = Folder.at(config.output).read(pieces.rejected_name(0)).splitlines()
    assert json.loads(line) == {
        "where": "s/a.jsonl:6",
        "reason": "can't be cleaned (RecursionError('too deep'))",
    }


@pytest.mark.parametrize("error", [ImportError("no model"), OSError("no model"), MemoryError()])
def test_what_would_fail_for_every_text_is_no_rejection(
    error: Exception,
    source: Source,
    make_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def clean(*_: object) -> object:
        raise error

    monkeypatch.setattr(documents, "clean", clean)
    with pytest.raises(type(error)):
        _cleaned(make_config(sources=[source], chunk_bytes=10**6))


def test_rejections_name_files_that_are_not_utf8(
    tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b'{"id": "\\ud800", "text": "%s"}\n{oops}\n' % TEXTS[0].encode())
    source = Source(kind="jsonl", paths=[f"{tmp_path}/*.jsonl"])
    config = make_config(sources=[source], chunk_bytes=10**6)
    _, (document,) = _cleaned(config)
    assert document.id == "jsonl/caf\\udce9.jsonl:\\ud800"
    (line,) = Folder.at(config.output).read(pieces.rejected_name(0)).splitlines()
    assert os.fsencode(json.loads(line)["where"]) == path + b":2"
