"""Formats beyond GLUE's: CSV, JSON, CoNLL, TREC, compressed; and files of one's own."""

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.tasks import TASKS, DataFlags, load_task, read_split
from finetune.tasks.readers import read_conll, read_csv, read_json, read_trec

TEXT = st.text(st.characters(exclude_characters="\x00\r", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1))
def test_csv_is_what_the_standard_writer_wrote(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("a", "b"), *rows])
    assert [tuple(row.values()) for _, row in read_csv(path, ()).rows] == rows


@pytest.mark.parametrize("form", ["lines", "list", "data"])
def test_json_by_lines_or_whole(tmp_path: Path, form: str) -> None:
    rows = [{"text": 'a "b"\n', "label": 1}, {"text": "c", "label": 0}]
    whole = {"lines": None, "list": rows, "data": {"version": 1, "data": rows}}[form]
    text = json.dumps(whole) if whole else "\n".join(map(json.dumps, rows)) + "\n"
    (tmp_path / "rows.json").write_text(text)
    table = read_json(tmp_path / "rows.json")
    assert table.columns == ("text", "label")
    assert [row for _, row in table.rows] == [
        {"text": 'a "b"\n', "label": "1"},
        {"text": "c", "label": "0"},
    ]


def test_conllu_words_are_those_with_whole_ids(tmp_path: Path) -> None:
    path = tmp_path / "x.conllu.gz"
    fields = "\t_\t_\t_\t_\t_\t_\t_"
    lines = [
        "# text = can't go",
        f"1-2\tcan't\t_{fields}",
        "1\tca\tcan\tAUX\t_\t_\t_\t_\t_\t_",
        "2\tn't\tnot\tPART\t_\t_\t_\t_\t_\t_",
        "2.1\tempty\t_\tVERB\t_\t_\t_\t_\t_\t_",
        "3\tNew York\tgo\tPROPN\t_\t_\t_\t_\t_\t_",
        "",
        "1\t#\t#\tSYM\t_\t_\t_\t_\t_\t_",
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    split = read_split(path, TASKS["pos"], TASKS["pos"].labels or ())
    assert split.texts == [("ca", "n't", "New York"), ("#",)]
    names = [[TASKS["pos"].labels[i] for i in row] for row in split.targets]  # type: ignore
    assert names == [["AUX", "PART", "PROPN"], ["SYM"]]


def test_conll_2003_by_white_space_and_documents(tmp_path: Path) -> None:
    path = tmp_path / "eng.train"
    path.write_text("-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nX X X O\n")
    columns = ("form", "pos", "chunk", "tag")
    assert list(read_conll(path, columns, "form", "tag")) == [
        (3, ["EU", "rejects"], ["B-ORG", "O"]),
        (7, ["X"], ["O"]),
    ]


def test_trec_in_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "train_5500.label"
    path.write_bytes("HUM:ind Who is Pelé ?\nNUM:date When : now ?\n".encode("latin-1"))
    rows = [row for _, row in read_trec(path).rows]
    assert rows[0] == {"coarse": "HUM", "fine": "HUM:ind", "question": "Who is Pelé ?"}
    assert rows[1]["question"] == "When : now ?"
    path.write_text("no class here\n")
    with pytest.raises(FinetuneError, match="line 1: found 'no class here'"):
        list(read_trec(path).rows)


def test_a_wrong_tag_names_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "dev.conll"
    path.write_text("a\tO\n\nb\tO\nc\tB-X\n")
    with pytest.raises(FinetuneError, match=r"line 4: tag is 'B-X', expected one of O"):
        read_split(path, TASKS["wnut17"], ("O",))


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('q,a,kind\n"one, two",b,x\nc,d,y\n')
    (tmp_path / "v.jsonl").write_text('{"q": "e", "a": "f", "kind": "y"}\n')
    (tmp_path / "p.tsv").write_text("a\tq\ng\th\n")
    flags = DataFlags(
        tmp_path / "t.csv",
        tmp_path / "v.jsonl",
        tmp_path / "p.tsv",
        text_columns=["q", "a"],
        label_column="kind",
    )
    data = load_task("mine", None, True, flags)
    assert data.labels == ("x", "y") and data.train.texts[0] == ("one, two", "b")
    assert data.dev[""].targets == [1] and data.test[""].texts == [("h", "g")]
    with pytest.raises(FinetuneError, match=r"needs --train_file, --validation_file and --text_c"):
        DataFlags(train_file=tmp_path / "t.csv").task("mine")
    with pytest.raises(FinetuneError, match=r"found '\.doc', expected one of \.tsv"):
        load_task(
            "m", None, False, DataFlags(tmp_path / "t.doc", tmp_path / "v.jsonl", None, ["q"])
        )


def test_a_named_file_takes_the_place_of_a_tasks_own(tmp_path: Path) -> None:
    (tmp_path / "ag_news").mkdir()
    (tmp_path / "ag_news" / "test.csv").write_text('"3","A ""b""","c"\n')
    (tmp_path / "part.csv").write_text('"1","a","b"\n"4","c","d"\n')
    data = load_task("ag_news", tmp_path, False, DataFlags(train_file=tmp_path / "part.csv"))
    assert data.train.targets == [0, 3] and data.dev[""].texts == [('A "b"', "c")]
    assert data.labels[data.dev[""].targets[0]] == "Business"  # type: ignore[index]


def test_a_part_is_seeded_and_keeps_texts_and_targets_together(tmp_path: Path) -> None:
    rows = "".join(f"t{i}\t{i % 2}\n" for i in range(50))
    for file in ("train", "dev"):
        (tmp_path / "SST-2").mkdir(exist_ok=True)
        (tmp_path / "SST-2" / f"{file}.tsv").write_text("sentence\tlabel\n" + rows)
    data = load_task("sst2", tmp_path)
    part = data.parts(10, None, None)
    assert len(part.train.texts) == 10 and part.dev == data.dev
    assert part.train == data.parts(10, 5, 5).train
    assert part.train.targets == [int(text[1:]) % 2 for (text,) in part.train.texts]
    assert part.train.texts != data.train.texts[:10]
