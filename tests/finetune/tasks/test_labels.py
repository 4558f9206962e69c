"""What is one class, what is a score, and what is neither."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.tasks import TASKS, DataFlags, TaskData, load_task
from finetune.tasks.labels import Targets, key_of


def load(tmp_path: Path, train: list, dev: list, **flags: object) -> TaskData:
    """A task whose labels are these, in JSON lines."""
    paths = [tmp_path / "train.jsonl", tmp_path / "dev.jsonl"]
    for path, labels in zip(paths, (train, dev), strict=True):
        rows = [{"text": f"t{index}", "label": label} for index, label in enumerate(labels)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"text_columns": ["text"], **flags}
    return load_task("mine", None, False, DataFlags(*paths, None, **settings))  # type: ignore


@pytest.mark.parametrize(
    "dev", [[0, 1], [0.0, 1.0], [False, True], ["0", "1"], ["False", "TRUE"], [" 0", "1.0\t"]]
)
def test_spellings_of_one_label_are_one_class(tmp_path: Path, dev: list) -> None:
    assert load(tmp_path, [0, 1], dev).dev[""].targets == [0, 1]
    data = load(tmp_path, dev, [0, 1])
    assert data.dev[""].targets == [0, 1]
    assert data.labels == tuple(
        sorted(json.dumps(label) if not isinstance(label, str) else label.strip() for label in dev)
    )


def test_spellings_in_one_file_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = load(tmp_path, [1, 1.0, True, 0, "yes ", "yes", "caf\u00e9", "cafe\u0301"], ["yes"])
    assert data.labels == ("0", "1", "caf\u00e9", "yes")
    assert data.train.targets == [1, 1, 1, 0, 3, 3, 2, 2]
    assert "train.jsonl: '1' and '1.0' and 'true' are one class" in caplog.text


def test_words_for_nothing_are_labels_but_nothing_is_not(tmp_path: Path) -> None:
    assert load(tmp_path, ["None", "NA", "nan"], ["None"]).labels == ("NA", "None", "nan")
    for nothing in (None, "", "  ", math.nan):
        with pytest.raises(
            FinetuneError, match=r"train\.jsonl, line 2: label is empty, null or mi"
        ):
            load(tmp_path, ["a", nothing, "b"], ["a"])
        with pytest.raises(FinetuneError, match=r"dev\.jsonl, line 1: label is empty, null"):
            load(tmp_path, ["a", "b"], [nothing])
        with pytest.raises(FinetuneError, match=r"line 2: label is empty, .*, expected a number"):
            load(tmp_path, [1, nothing], [1], regression=True)


def test_a_label_that_only_dev_has(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match=r"line 2: label is 'c', expected one of a, b, the tr"):
        load(tmp_path, ["a", "b"], ["a", "c"])


@pytest.mark.parametrize(
    "label", ["nan", "inf", "-Infinity", "1e39", "1_000", "\u0663", "3,5", "true", "0x1", "."]
)
def test_what_is_no_score(tmp_path: Path, label: str) -> None:
    with pytest.raises(FinetuneError, match=r"line 2: label is .*, expected a number, such as"):
        load(tmp_path, [1, label], [1], regression=True)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-9, 9))
def test_scores_are_what_python_reads(number: float, whole: int) -> None:
    if abs(number) < 3.4e38:
        assert Targets(TASKS["stsb"], ())(f" {number!r} ") == number
    assert Targets(TASKS["stsb"], ())(f"{whole:+d}") == whole


@given(st.integers())
def test_whole_numbers_are_equal_with_and_without_a_point(number: int) -> None:
    assert key_of(f"{number}") == key_of(f"{number}.0") == key_of(f" {number}.00\n")
    assert key_of(f"{number}") != key_of(f"{number}.5")


def test_one_class_is_refused(tmp_path: Path) -> None:
    for labels in (["ok", "ok "], [1, True]):
        with pytest.raises(FinetuneError, match=r"train\.jsonl: label is .* expected at least two"):
            load(tmp_path, labels, labels)
    assert load(tmp_path, [3, 3], [3], regression=True).train.targets == [3.0, 3.0]


def test_the_class_of_an_ending_is_its_number(tmp_path: Path) -> None:
    def choose(labels: list, endings: int = 3) -> TaskData:
        path = tmp_path / "train.jsonl"
        names = ["s", "b", *(f"e{index}" for index in range(endings))]
        rows = [dict.fromkeys(names, "x") | {"label": label} for label in labels]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_task(
            "mine", None, False, DataFlags(path, path, None, names, task_kind="choice")
        )

    assert choose([2, 0]).train.targets == [2, 0]
    assert choose([0, 0]).train.targets == [0, 0]
    assert choose([3, 1, 2]).train.targets == [2, 0, 1]
    assert choose(list(range(1, 12)), 11).train.targets == list(range(11))
    with pytest.raises(FinetuneError, match="label is one of A, C for 3 endings, expected the num"):
        choose(["A", "C"])


def test_only_texts_have_scores(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="--regression: found --task_kind tokens"):
        load(tmp_path, [1], [1], regression=True, task_kind="tokens")
