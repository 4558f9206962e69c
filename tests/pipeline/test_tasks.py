import re
from collections import Counter

from pipeline.config import Tasks
from pipeline.sources.records import Document
from pipeline.tasks import library, same_docstring

WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
]
WORDS += ["mu", "nu", "xi", "omicron"]


def _documents() -> list[Document]:
    documents = []
    for number in range(300):
        source = f"lib{number % 5}x"
        words = [WORDS[(number * 7 + i * (1 + number % 11)) % 15] for i in range(8)]
        sentences = [f"The {' '.join(words)} number {'i' * k} of {'v' * number}." for k in (1, 2)]
        name = f" Use {source.upper()} here." if number % 10 == 0 else ""
        documents.append(Document(f"d{number}", " ".join(sentences) + name, source))
    return documents


TASKS = Tasks(
    libraries=4,
    library_train=40,
    library_dev=12,
    same_docstring_libraries=3,
    same_docstring_train=60,
    same_docstring_dev=20,
    max_characters=1000,
)


def test_library_is_even_and_names_no_library() -> None:
    rows = library(_documents(), Tasks(**{**vars(TASKS), "max_characters": 90}))
    assert {split: len(lines) for split, lines in rows.items()} == {
        "dev": 12,
        "test": 12,
        "train": 40,
    }
    cells = [line.split("\t") for lines in rows.values() for line in lines]
    assert all(len(cell) == 2 for cell in cells)
    assert len({text for text, _ in cells}) == len(cells)
    assert not any("LIB" in text for text, _ in cells)
    assert set(Counter(line.split("\t")[1] for line in rows["train"]).values()) == {10}


def test_same_docstring_labels_are_true_and_even() -> None:
    documents = _documents()
    rows = same_docstring(documents, TASKS)
    source = {sentence: d.source for d in documents for sentence in re.findall(r"[^.]+\.", d.text)}
    seen: set[str] = set()
    for split, size in (("train", 60), ("dev", 20), ("test", 20)):
        cells = [line.split("\t") for line in rows[split]]
        assert Counter(label for *_, label in cells) == {"same": size // 2, "different": size // 2}
        for first, second, label in cells:
            assert any(first in d.text and second in d.text for d in documents) == (label == "same")
        found = Counter((source[first], label) for first, _, label in cells)
        names = {name for name, _ in found}
        assert len(names) == 3
        assert all(abs(found[name, "same"] - found[name, "different"]) <= 1 for name in names)
        sentences = {s for first, second, _ in cells for s in (first, second)}
        assert not sentences & seen
        seen |= sentences
