"""Tables in: the rows that `predict` answers are those that pandas reads."""

import json
from pathlib import Path

import pandas as pd
import pytest

from finetune.errors import FinetuneError
from finetune.serving.lines import read_requests

FRAME = pd.DataFrame(
    {
        "label": ["a", "b", "a"],
        "question": ["red, sky", 'a "blue" sea', "one"],
        "answer": ["green", "tree", "two\nthree"],
    }
)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "t.csv.gz"])
@pytest.mark.parametrize("columns", [["question"], ["answer", "question"]])
def test_rows_are_those_of_pandas(name: str, columns: list[str], tmp_path: Path) -> None:
    file = tmp_path / name
    if ".json" in name:
        FRAME.to_json(file, orient="records", lines=name == "t.jsonl")
    else:
        FRAME.to_csv(file, index=False, sep="\t" if name == "t.tsv" else ",")
    found = list(read_requests([file, file], columns))
    expected = [tuple(row) for row in FRAME[columns].to_numpy()] * 2
    fields = ("text", "pair")[: len(columns)]
    assert [tuple(getattr(line.request, f) for f in fields) for line in found] == expected
    assert all(line.request.task is None for line in found)
    if len(columns) == 1:
        assert {line.request.pair for line in found} == {None}
    numbers = [line.number for line in found]
    assert numbers == sorted(set(numbers))
    first = 1 if ".json" in name else 2  # after the header
    assert numbers[:3] == [first, first + 1, first + 2]
    assert found[1].where == f"{file}, {'record' if name == 't.json' else 'line'} {first + 1}"


def test_words_of_json(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps({"tokens": ["red", "sky"], "tags": ["O", "O"]}) + "\n")
    (line,) = read_requests([file], ["tokens"])
    assert line.request.text == ["red", "sky"]
    with pytest.raises(FinetuneError, match=r"t\.jsonl, line 1: tokens is a list, expected a str"):
        list(read_requests([file], ["tags", "tokens"]))


def test_a_table_is_no_lines(tmp_path: Path) -> None:
    """Its header would be answered, and the gold label would be part of each text."""
    for name in ("t.csv", "t.csv.gz", "t.TSV"):
        FRAME.to_csv(tmp_path / name, index=False, sep="\t" if name == "t.TSV" else ",")
        with pytest.raises(FinetuneError, match=r"columns label, question, answer; .*text_columns"):
            next(read_requests([tmp_path / name]))
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "red", "label": "a"}) + "\n")
    with pytest.raises(FinetuneError, match=r"unknown key 'label', .* --text_columns"):
        list(read_requests([tmp_path / "t.jsonl"]))
    (line,) = read_requests([tmp_path / "t.jsonl"], ["text"])
    assert line.request.text == "red"


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(FinetuneError, match=r"t\.csv, line 1: no column 'text'; found label, qu"):
        list(read_requests([tmp_path / "t.csv"], ["text"]))
    with pytest.raises(FinetuneError, match="found 0 files and 1 columns, expected files first"):
        list(read_requests([], ["text"]))
    with pytest.raises(FinetuneError, match="found 1 files and 3 columns, expected files first"):
        list(read_requests([tmp_path / "t.csv"], ["label", "question", "answer"]))
