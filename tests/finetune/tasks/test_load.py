"""Reading GLUE files exactly, and saying what is wrong with those that aren't GLUE's."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.tasks import TASKS, load_task, read_split


def test_mrpc_texts_keep_their_quotes(data_dir: Path) -> None:
    split = read_split(data_dir / "glue" / "MRPC" / "dev.tsv", TASKS["mrpc"], ("0", "1"))
    assert split.texts[0][1].startswith('"The foodservice')
    assert split.targets is not None and split.targets[0] == 1


def test_test_files_have_no_targets(data_dir: Path) -> None:
    split = read_split(
        data_dir / "glue" / "CoLA" / "test.tsv", TASKS["cola"], ("0", "1"), is_test=True
    )
    assert (len(split.texts), split.targets) == (1063, None)
    assert split.texts[0] == ("Bill whistled past the house.",)


TEXT = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(TEXT, st.sampled_from("01")), min_size=1))
def test_any_text_without_tabs_and_line_ends_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("tsv") / "dev.tsv"
    lines = ["sentence\tlabel", *("\t".join(row) for row in rows)]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    split = read_split(path, TASKS["sst2"], ("0", "1"))
    assert [text for (text,) in split.texts] == [text for text, _ in rows]
    assert split.targets == [int(label) for _, label in rows]


def test_cola_has_no_header_and_mrpc_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "cola.tsv").write_text("gj04\t1\t\tFirst.\ngj04\t0\t*\tSecond.\n")
    assert read_split(tmp_path / "cola.tsv", TASKS["cola"], ("0", "1")).targets == [1, 0]
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    (tmp_path / "mrpc.tsv").write_text(f'{header}1\t1\t2\t"a\tb\n', encoding="utf-8")
    assert read_split(tmp_path / "mrpc.tsv", TASKS["mrpc"], ("0", "1")).texts == [('"a', "b")]


def test_qqp_drops_rows_without_six_fields(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "1\t1\t2\ta\tb\t1\n"
        "2\t3\t4\tbroken\n"
        "3\t5\t6\tc\td\t0\n"
    )
    split = read_split(path, TASKS["qqp"], ("0", "1"))
    assert (split.texts, split.targets) == ([("a", "b"), ("c", "d")], [1, 0])


def test_mnli_mismatched_is_a_split_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "MNLI").mkdir()
    for file, count in (("train", 3), ("dev_matched", 2), ("dev_mismatched", 1)):
        rows = ["sentence1\tsentence2\tgold_label", *["a\tb\tneutral"] * count]
        (tmp_path / "MNLI" / f"{file}.tsv").write_text("\n".join(rows) + "\n")
    data = load_task("mnli", tmp_path)
    assert {suffix: len(split.texts) for suffix, split in data.dev.items()} == {"": 2, "-mm": 1}
    # The Hub's order, so that its label ids need no mapping.
    assert data.labels == ("entailment", "neutral", "contradiction")
    assert data.train.targets == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sentence\tlabel\na\t1\nb\t2\n", ["line 3", "'2'", "0, 1"]),
        ("text\tlabel\na\t1\n", ["line 1", "'sentence'", "'text', 'label'"]),
        ("sentence\tlabel\na\tb\t1\n", ["line 2", "3 fields", "expected 2"]),
        ("sentence\tlabel\n", ["no rows"]),
    ],
)
def test_errors_name_file_line_found_and_expected(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text(text)
    with pytest.raises(FinetuneError) as error:
        read_split(path, TASKS["sst2"], ("0", "1"))
    for part in [str(path), *parts]:
        assert part in str(error.value)


def test_a_score_that_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text("sentence1\tsentence2\tscore\na\tb\thigh\n")
    with pytest.raises(FinetuneError, match=r"line 2: score is 'high', expected a number"):
        read_split(path, TASKS["stsb"], ())


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match=r"RTE/train\.tsv.*--data_dir"):
        load_task("rte", tmp_path)
