"""Sentences of words and tags: CoNLL's variants, and JSON with lists."""

import gzip
import json
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.tasks import TASKS, DataFlags, load_task, read_split
from finetune.tasks.words import read_conll, read_json_words

COLUMNS = ("word", "tag")


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
        (["EU", "rejects"], ["B-ORG", "O"], ["line 3", "line 4"]),
        (["X"], ["O"], ["line 7"]),
    ]


def test_a_wrong_tag_names_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "dev.conll"
    path.write_text("a\tO\n\nb\tO\nc\tB-X\n")
    with pytest.raises(FinetuneError, match=r"line 4: tag is 'B-X', expected one of O"):
        read_split(path, TASKS["wnut17"], ("O",))


def words_of(path: Path) -> list[tuple[list[str], list[str]]]:
    return [(s.words, s.tags) for s in read_conll(path, COLUMNS, "word", "tag")]


def test_a_wrong_tag_after_comments_and_words_without_an_id(tmp_path: Path) -> None:
    path = tmp_path / "dev.conllu"
    rest = "\t_" * 6
    rows = [
        "# newdoc",
        f"1-2\tcan't\t_\t_{rest}",
        f"1\tca\t_\tAUX{rest}",
        f"2\tn't\t_\tNOT{rest}",
    ]
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(FinetuneError, match="line 4: upos is 'NOT'"):
        read_split(path, TASKS["pos"], TASKS["pos"].labels or ())


@pytest.mark.parametrize("mark", [" ", "\t"])
def test_hash_is_a_word_and_comments_are_comments(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "train.conll"
    lines = ["# a comment on it", "Room_O", "#_O", "7_O", "", "# id = 3", "#_O", "#yolo_HT"]
    path.write_text("\n".join(lines).replace("_", mark) + "\n")
    assert words_of(path) == [
        (["Room", "#", "7"], ["O", "O", "O"]),
        (["#", "#yolo"], ["O", "HT"]),
    ]


def test_a_comment_of_as_many_words_as_columns(tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text("# newdoc\nRoom\tO\n#\tO\n")
    assert words_of(path) == [(["Room", "#"], ["O", "O"])]
    path.write_text("# newdoc\nRoom O\n# O\n")
    with pytest.raises(FinetuneError, match="line 1: '# newdoc' is a comment, or else the word"):
        words_of(path)
    path.write_text("It PRP\n# #\n7 CD\n# SYM\n")
    known = list(read_conll(path, COLUMNS, "word", "tag", ("SYM",)))
    assert known[0].tags == ["PRP", "#", "CD", "SYM"]


def test_words_with_white_space_that_isnt_ascii(tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    words = ["5\u00a0000", "soft\u00adly", "\u200b", "\u3000", "\U0001200b"]
    path.write_text("".join(f"{word}  O \r\n" for word in words) + "  \r\nA O\r\n", newline="")
    assert words_of(path) == [(words, ["O"] * 5), (["A"], ["O"])]


def test_a_line_without_a_tag_in_a_file_with_tabs(tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text("New York\tB-LOC\nNew York\n")
    with pytest.raises(FinetuneError, match="line 2: 1 fields, expected 2"):
        words_of(path)
    path.write_text("a\tO\n\tO\n")
    with pytest.raises(FinetuneError, match="line 2: word is empty"):
        words_of(path)


def test_json_with_lists(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = [{"words": ["a", "#"], "tags": ["O", 1]}, {"words": ["b"], "tags": ["O"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = DataFlags(path, path, None, ["words"], "tags", "tokens")
    data = load_task("mine", None, False, flags)
    assert data.labels == ("1", "O") and data.train.texts == [("a", "#"), ("b",)]
    assert data.train.targets == [[1, 0], [1]]
    for row, message in (
        ({"words": "a", "tags": ["O"]}, "line 1: words: expected a list of strings"),
        ({"words": ["a", "b"], "tags": ["O"]}, "line 1: found 2 in words and 1 in tags"),
        ({"words": ["a"], "tags": [None]}, "line 1: tags, item 1: found nothing"),
        ({"words": [["a"]], "tags": ["O"]}, "line 1: words: found a list"),
    ):
        path.write_text(json.dumps(row))
        with pytest.raises(FinetuneError, match=message):
            list(read_json_words(path, "words", "tags"))
