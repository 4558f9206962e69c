"""Odd files as people reported them elsewhere, read as task data: rightly, or refused by line.

The inputs stand beside the checkout (`shared/reports`, with a README on what is right); their
brothers are made by the tests of each reader.
"""

from pathlib import Path

import pandas as pd
import pytest

from finetune.errors import FinetuneError
from finetune.tasks import DataFlags, Task, TaskData, load_task, read_split

REPORTS = Path(__file__).parents[3] / "shared/reports"
pytestmark = pytest.mark.skipif(
    not REPORTS.exists(), reason="needs shared/reports beside the checkout"
)
PAIR = ["question", "answer"]
SENTENCES = "24-conll"


def load(folder: str, train: str, dev: str, columns: list[str], label: str) -> TaskData:
    kind = "tokens" if folder == SENTENCES else "text"
    files = (REPORTS / folder / train, REPORTS / folder / dev, None)
    return load_task("mine", None, False, DataFlags(*files, columns, label, kind))  # type: ignore


def own_task(*files: Path) -> Task:
    return DataFlags(files[0], files[0], None, ["text"]).task("mine")


def by_pandas(path: Path, columns: list[str]) -> list[tuple[str, ...]]:
    if path.suffix == ".csv":
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    else:
        frame = pd.read_json(path, lines=True, dtype=False).fillna("")
    return list(frame[columns].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    "name", ["null.jsonl", "literal.jsonl", "blank.csv", "first-row-short.jsonl"]
)
def test_nulls_are_empty_and_words_for_them_stay(name: str) -> None:
    data = load("03-null-cells", f"train-{name}", "dev.jsonl", PAIR, "good")
    assert data.train.texts == by_pandas(REPORTS / "03-null-cells" / f"train-{name}", PAIR)
    assert data.labels == ("0", "1")
    assert data.train.targets == [0, 1] * 4 and data.dev[""].targets == [0, 1] * 3
    texts = [text for row in data.train.texts for text in row]
    if name == "literal.jsonl":
        assert {"null", "None", "NA", "nan"} < set(texts)
    else:
        assert "" in texts and not {"None", "nan", "null"} & set(texts)


@pytest.mark.parametrize("form", ["bool", "float"])
def test_equal_labels_are_equal(form: str) -> None:
    data = load("03-null-cells", "train-blank.csv", f"dev-{form}-labels.jsonl", PAIR, "good")
    assert data.labels == ("0", "1") and data.dev[""].targets == [0, 1] * 4


@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
def test_one_bad_byte_is_named(name: str) -> None:
    path = REPORTS / "09-one-bad-byte" / name
    with pytest.raises(FinetuneError, match="line 5, byte 6: found 0x92 after 'I don', expected"):
        read_split(path, own_task(path), ("0", "1"))


def test_a_spreadsheets_unicode_text() -> None:
    path = REPORTS / "09-one-bad-byte" / "excel-unicode-text.tsv"
    split = read_split(path, own_task(path), ("0", "1"))
    rows = [line.split("\t") for line in path.read_text(encoding="utf-16").splitlines()[1:]]
    assert split.texts == [(text,) for text, _ in rows]
    assert split.targets == [int(label) for _, label in rows]
    assert split.texts[0] == ("Le café était fermé à midi.",)


def test_a_comma_without_quotes_is_named() -> None:
    path = REPORTS / "09-one-bad-byte" / "dev.csv"
    with pytest.raises(FinetuneError, match="line 6: 3 fields, expected 2"):
        read_split(path, own_task(path), ("0", "1"))


@pytest.mark.parametrize("name", ["blank-between.jsonl", "blank-end.tsv", "crlf.tsv"])
def test_blank_lines_are_no_rows_and_line_ends_no_labels(name: str) -> None:
    data = load("10-blank-lines", name, "dev.jsonl", ["text"], "label")
    assert data.labels == ("no", "yes")
    assert data.train.texts == [(f"Jar number {index} is full.",) for index in range(8)]
    assert data.train.targets == [0, 1] * 4


def test_a_tsv_with_quotes_of_pandas() -> None:
    data = load("10-blank-lines", "pandas-quoted.tsv", "dev.jsonl", ["text"], "label")
    frame = pd.read_csv(REPORTS / "10-blank-lines" / "pandas-quoted.tsv", sep="\t")
    assert [text for (text,) in data.train.texts] == frame["text"].tolist()
    assert [data.labels[target] for target in data.train.targets or ()] == frame["label"].tolist()  # type: ignore


VARIANTS = ["train", "train-tabs", "train-crlf", "train-blank-with-spaces"]


@pytest.mark.parametrize("name", [*VARIANTS, "train-odd-tokens", "train-odd-tokens-tabs"])
def test_hash_is_a_word_and_so_are_odd_tokens(name: str) -> None:
    data = load(SENTENCES, f"{name}.conll", "dev.conll", ["word"], "tag")
    text = (REPORTS / SENTENCES / f"{name}.conll").read_bytes().decode()
    lines = [line for line in text.replace("\r", "").split("\n") if line.strip()]
    words = [word for row in data.train.texts for word in row]
    assert words == [line.replace("\t", " ").rsplit(" ", 1)[0] for line in lines]
    assert words.count("#") == 12 and set(data.labels) == {"B-PER", "I-PER", "B-LOC", "O"}
    if name in VARIANTS:
        assert (len(data.train.texts), len(words)) == (24, 132)


def test_a_word_without_a_tag_and_a_tag_that_only_dev_has() -> None:
    with pytest.raises(FinetuneError, match=r"token-only\.conll, line 24: 1 fields, expected 2"):
        load(SENTENCES, "train-token-only.conll", "dev.conll", ["word"], "tag")
    with pytest.raises(FinetuneError, match=r"new-tag\.conll, line 17: tag is 'B-ORG', expected"):
        load(SENTENCES, "train.conll", "dev-new-tag.conll", ["word"], "tag")


def test_one_class_is_refused() -> None:
    with pytest.raises(FinetuneError, match=r"train\.csv: label is 'ok' in every row"):
        load("25-one-class", "train.csv", "dev.csv", ["text"], "label")


def test_a_plain_file() -> None:
    data = load("common", "train.csv", "dev.csv", ["text"], "label")
    assert data.labels == ("bad", "good")
    assert data.train.texts == by_pandas(REPORTS / "common/train.csv", ["text"])
