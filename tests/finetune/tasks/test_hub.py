"""The Hub's path, with `datasets.load_dataset` replaced by one that knows what the Hub holds."""

import datasets
import pytest

from finetune.errors import FinetuneError
from finetune.tasks import TaskData, load_task


def table(**columns: list) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns)


def test_mnli_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(premise=["a", "b"], hypothesis=["c", "d"], label=[2, 0])
    parts = [
        "train",
        *(f"{s}_{m}" for s in ("validation", "test") for m in ("matched", "mismatched")),
    ]
    asked: list[tuple] = []

    def load(*names: str) -> datasets.DatasetDict:
        asked.append(names)
        return datasets.DatasetDict(dict.fromkeys(parts, rows))

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = load_task("mnli", None, with_test=True)
    assert asked == [("nyu-mll/glue", "mnli")]
    assert data.train.texts == [("a", "c"), ("b", "d")]
    assert [data.labels[i] for i in data.train.targets] == ["contradiction", "entailment"]  # type: ignore
    assert set(data.dev) == {"", "-mm"} and data.test["-mm"].targets is None


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*names: str) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(FinetuneError, match=r"nyu-mll/glue rte could not be fetched.*no route"):
        load_task("rte", None)
    with pytest.raises(FinetuneError, match=r"trec: not on the Hub; .*--data_dir"):
        load_task("trec", None)


def test_nulls_are_empty_texts_and_no_labels(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load_rows(label: list, sentence: list | None = None) -> TaskData:
        texts = sentence or ["a", "b"]
        rows = table(sentence=texts, label=label)
        held = table(sentence=texts, label=[-1, -1])  # as GLUE's test sets have it
        parts = {"train": rows, "validation": table(sentence=["c"], label=[1]), "test": held}
        monkeypatch.setattr(datasets, "load_dataset", lambda *_: datasets.DatasetDict(parts))
        return load_task("sst2", None, with_test=True)

    data = load_rows([0, 1], [None, "None"])
    assert data.train.texts == [("",), ("None",)] and data.test[""].targets is None
    assert "nyu-mll/glue, train: sentence is empty in 1 of 2 rows" in caplog.text
    for label in ([0, None], [0, -1], [1, 2]):
        found = rf"nyu-mll/glue, train, row 1: label is {label[1]}, expected from 0 to 1"
        with pytest.raises(FinetuneError, match=found):
            load_rows(label)
