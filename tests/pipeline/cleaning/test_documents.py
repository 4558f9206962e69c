import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cleaning.documents import clean_chunk
from pipeline.config import Cleaning, Config, Source
from pipeline.sources import plan
from pipeline.split import document_hash, split_of
from pipeline.store import pieces

SENTENCES = [
    f"In chapter {i} the ferryman of lock {i * 37 % 101} was late again." for i in range(90)
]


def _cleaned(config: Config) -> tuple[dict[str, Any], list[Any]]:
    folder = Path(config.output)
    (chunk,) = plan(config.sources, 10**9)
    found = clean_chunk(folder, chunk, config)
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
    found, documents = _cleaned(config)
    long = [d for d in documents if ":long" in d.id]
    assert [d.id for d in long][:2] == ["books/a.jsonl:long", "books/a.jsonl:long part 2"]
    assert " ".join(" ".join(d.text.split()) for d in long) == " ".join(SENTENCES)
    assert all(d.text.count("was late") % 5 == 0 for d in long)  # whole paragraphs
    assert len({split_of(document_hash(d.id), config.split) for d in long}) == 1
    unbroken = [d.text for d in documents if ":unbroken" in d.id]
    assert [len(text) for text in unbroken] == [834, 833, 833]
    counts = found["counts"]["books"]
    dropped = {"too_short": 1, "not_prose": 3}  # the table's three parts
    characters = sum(len(d.text) for d in documents)
    assert counts == {
        "read": 4,
        "cut": 3,
        "further_parts": counts["further_parts"],
        **dropped,
        "clean": len(documents),
        "characters": characters,
    }
    assert counts["read"] + counts["further_parts"] == len(documents) + sum(dropped.values())
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
