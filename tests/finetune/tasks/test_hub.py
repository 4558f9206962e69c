"""The Hub's path, with `datasets.load_dataset` replaced by one that knows what the Hub holds."""

import datasets
import pytest

from finetune.errors import FinetuneError
from finetune.tasks import load_task


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
