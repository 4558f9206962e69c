"""Tables beyond GLUE's: CSV, JSON, TREC, quoted TSV; and files of one's own."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.tasks import DataFlags, load_task
from finetune.tasks.readers import read_csv, read_json, read_trec, read_tsv

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
    rows = [{"text": 'a "b"\n', "label": "1"}, {"text": "c", "label": "0"}]
    whole = {"lines": None, "list": rows, "data": {"version": 1, "data": rows}}[form]
    text = json.dumps(whole) if whole else "\n".join(map(json.dumps, rows)) + "\n"
    (tmp_path / "rows.json").write_text(text)
    table = read_json(tmp_path / "rows.json")
    assert table.columns == ("text", "label")
    assert [row for _, row in table.rows] == rows


def test_json_numbers_are_as_written_and_columns_are_those_of_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1.0, "b": NaN}\n\n  \n{"c": 1e400, "a": true}\n{"b": [10]}\n')
    table = read_json(path)
    assert table.columns == ("a", "b", "c")
    assert list(table.rows) == [
        ("line 1", {"a": "1.0", "b": None, "c": None}),
        ("line 4", {"a": True, "b": None, "c": "1e400"}),
        ("line 5", {"a": None, "b": ["10"], "c": None}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": 2\n', "line 2: Expecting ',' delimiter"),
        ('[\n{"a": 1},\n{"a" 2}\n]\n', "line 3: Expecting ':' delimiter"),
        ('[{"a": 1}, 2]', "record 2: expected an object"),
        ('{"a": 1}\n[1]\n', "line 2: expected an object"),
        ("5", "line 1: expected an object"),
        ("[" * 100_000, "line 1: Nested too deeply"),
    ],
)
def test_json_that_is_no_table_is_named_by_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(FinetuneError, match=message):
        read_json(tmp_path / "rows.json")


def test_trec_in_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "train_5500.label"
    path.write_bytes("HUM:ind Who is Pelé ?\nNUM:date When : now ?\n".encode("latin-1"))
    rows = [row for _, row in read_trec(path).rows]
    assert rows[0] == {"coarse": "HUM", "fine": "HUM:ind", "question": "Who is Pelé ?"}
    assert rows[1]["question"] == "When : now ?"
    path.write_text("no class here\n")
    with pytest.raises(FinetuneError, match="line 1: found 'no class here'"):
        list(read_trec(path).rows)


def test_trec_in_both_encodings_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "train_5500.label"
    lines = ["HUM:ind Who is Pelé ?\n", "\n", "LOC:city Où est-ce ?\n"]
    path.write_bytes(lines[0].encode() + b"\r\n" + lines[2].encode("latin-1"))
    assert [(where, row["question"]) for where, row in read_trec(path).rows] == [
        ("line 1", "Who is Pelé ?"),
        ("line 3", "Où est-ce ?"),
    ]


def test_csv_names_the_first_line_of_a_row_and_skips_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\r\na,b\r\n"1\r\n2",3\r\n  \r\n\r\n4,5\r\n"6,7\r\n')
    table = read_csv(path, ())
    assert [next(table.rows), next(table.rows)] == [
        ("line 3", {"a": "1\r\n2", "b": "3"}),
        ("line 7", {"a": "4", "b": "5"}),
    ]
    with pytest.raises(FinetuneError, match="line 8: unexpected end of data in the row that"):
        next(table.rows)
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(FinetuneError, match=r"line 2: 3 fields, expected 2.*needs quotes"):
        list(read_csv(path, ()).rows)


def test_csv_with_a_field_beyond_the_modules_limit(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(f"a,b\n{'x' * 200_000},1\n")
    ((_, row),) = read_csv(tmp_path / "rows.csv", ()).rows
    assert len(row["a"]) == 200_000


CELLS = st.text(
    st.sampled_from("ab ,\"'\t\n") | st.characters(exclude_characters="\x00\r", codec="utf-8"),
    min_size=1,
)


@example([("\t\n", "0")], 0)  # split without its quotes, it gives two rows of two fields
@settings(deadline=None)  # writes files
@given(st.lists(st.tuples(CELLS, st.sampled_from("01")), min_size=1), st.sampled_from([0, 1, 2]))
def test_a_tsv_that_pandas_wrote_is_what_pandas_reads(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], quoting: int
) -> None:
    path = tmp_path_factory.mktemp("tsv") / "rows.tsv"
    frame = pd.DataFrame([("a", "b"), ('He said "a"', "1"), *rows])
    frame.to_csv(path, sep="\t", index=False, header=False, quoting=quoting)
    back = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    found = [tuple(row.values()) for _, row in read_tsv(path, (), False, True).rows]
    assert found == list(back.itertuples(index=False, name=None))


@settings(deadline=None)  # writes files
@given(st.lists(st.text('ab " ,', min_size=1), min_size=1))
def test_quotation_marks_of_plain_text_stay(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    """One of them is within a field that isn't quoted: no CSV writer leaves that."""
    path = tmp_path_factory.mktemp("tsv") / "rows.tsv"
    texts = ['a "b" c', '"I came.', 'I saw."', *(text for text in texts if text.strip())]
    path.write_text("text\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    assert [row["text"] for _, row in read_tsv(path, (), False, True).rows] == texts


def test_a_quote_over_two_lines_of_plain_text_stays(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"I came.\t1\nI saw."\t0\n')
    found = [row["text"] for _, row in read_tsv(path, (), False, True).rows]
    assert found == ['"I came.', 'I saw."']


@pytest.mark.parametrize("form", ["{}\t{}\n", "{},{}\n"])
def test_a_column_twice_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("rows.tsv" if "\t" in form else "rows.csv")
    path.write_text(form.format("label", "label") + form.format("a", "b"))
    with pytest.raises(FinetuneError, match="line 1: found 'label' twice"):
        load_task("mine", None, False, DataFlags(path, path, None, ["label"]))


@pytest.mark.parametrize("value", ["[1]", "{}", '"a\\ud800"'])
def test_json_values_that_are_no_text_are_refused_in_columns_that_are_read(
    tmp_path: Path, value: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"t": "a", "label": 1}\n' + f'{{"t": {value}, "label": 0, "other": 1}}\n')
    with pytest.raises(FinetuneError, match=r"rows\.jsonl, line 2: t: found .*"):
        load_task("mine", None, False, DataFlags(path, path, None, ["t"]))
    path.write_text('{"t": "a", "label": 1}\n' + f'{{"t": "b", "label": 0, "other": {value}}}\n')
    data = load_task("mine", None, False, DataFlags(path, path, None, ["t"]))
    assert data.train.texts == [("a",), ("b",)]


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
