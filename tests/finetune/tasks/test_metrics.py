"""Metrics against their definitions, scikit-learn's and scipy's, and conlleval's rules."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn

from finetune.errors import FinetuneError
from finetune.tasks import TASKS, Split, TaskData
from finetune.tasks.metrics import check_metrics, entities, entity_f1, score, score_tags


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    targets = draw.integers(0, 2, 200)
    return targets, np.where(draw.random(200) < 0.8, targets, 1 - targets)


def test_classification(labels: tuple[np.ndarray, np.ndarray]) -> None:
    targets, predictions = labels
    tp, tn = (targets & predictions).sum(), ((1 - targets) & (1 - predictions)).sum()
    fp, fn = ((1 - targets) & predictions).sum(), (targets & (1 - predictions)).sum()
    found = score(("accuracy", "f1", "matthews_correlation"), targets, predictions)
    assert found["accuracy"] == pytest.approx((tp + tn) / 200)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    root = np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    assert found["matthews_correlation"] == pytest.approx((tp * tn - fp * fn) / root)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.kind != "tokens"])
def test_every_task_agrees_with_the_libraries_on_random_predictions(name: str) -> None:
    task, draw = TASKS[name], np.random.default_rng(1)
    if task.is_regression:
        targets, predictions = draw.random(300) * 5, draw.random(300) * 5
    else:
        classes = len(task.labels or range(9))
        targets, predictions = draw.integers(0, classes, (2, 300))
    expected = {
        "accuracy": lambda: sklearn.accuracy_score(targets, predictions),
        "f1": lambda: sklearn.f1_score(targets, predictions),
        "matthews_correlation": lambda: sklearn.matthews_corrcoef(targets, predictions),
        "pearson": lambda: stats.pearsonr(targets, predictions).statistic,
        "spearmanr": lambda: stats.spearmanr(targets, predictions).statistic,
    }
    found = score(task.metrics, targets, predictions)
    for metric in task.metrics:
        assert found[metric] == pytest.approx(expected[metric]())


def test_correlation_and_combined_score() -> None:
    draw = np.random.default_rng(0)
    targets = draw.random(50)
    predictions = targets + draw.random(50)
    found = score(("pearson", "spearmanr"), targets, predictions)
    ranks = [np.argsort(np.argsort(values)) for values in (targets, predictions)]
    assert found["pearson"] == pytest.approx(np.corrcoef(targets, predictions)[0, 1])
    assert found["spearmanr"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert found["combined_score"] == pytest.approx((found["pearson"] + found["spearmanr"]) / 2)


def test_constant_predictions_and_no_numbers_correlate_with_nothing() -> None:
    assert score(("pearson",), np.arange(5.0), np.ones(5)) == {"pearson": 0.0}
    assert score(("pearson",), np.arange(3.0), np.array([1, np.nan, 2])) == {"pearson": 0.0}


def conlleval(tags: list[str]) -> set[tuple[str, int, int]]:
    """The chunks of conlleval.pl, its two rule tables written out."""
    ends = {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O"), ("E", "E"), ("E", "I"), ("E", "O")}
    ends |= {("B", "S"), ("I", "S"), ("E", "B"), ("E", "S")} | {("S", p) for p in "BIESO"}
    starts = {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I"), ("E", "E"), ("E", "I"), ("O", "E")}
    starts |= {("E", "B"), ("S", "B"), ("S", "I"), ("S", "E")} | {(p, "S") for p in "BIESO"}
    chunks, open_at, before = set(), None, ("O", "")
    for index, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        other = before[1] != kind
        if open_at is not None and (
            (before[0], prefix) in ends or (before[0] != "O" and prefix != "O" and other)
        ):
            chunks.add((before[1], open_at, index))
            open_at = None
        if (before[0], prefix) in starts or (before[0] != "O" and prefix != "O" and other):
            open_at = index
        before = (prefix, kind)
    return chunks


TAGS = st.lists(st.sampled_from(["O", *(f"{p}-{k}" for p in "BIES" for k in ("X", "Y"))]))


@given(TAGS)
def test_entities_are_conllevals(tags: list[str]) -> None:
    assert entities(tags) == conlleval(tags)


@given(st.lists(st.tuples(st.sampled_from("XYO"), st.integers(1, 3)), max_size=8))
def test_entities_written_in_bio_are_found_again(spans: list[tuple[str, int]]) -> None:
    tags: list[str] = []
    wanted = set()
    for kind, length in spans:
        if kind == "O":
            tags += ["O"] * length
        else:
            wanted.add((kind, len(tags), len(tags) + length))
            tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
    assert entities(tags) == wanted


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (("0", "1", "2"), "'0'"),
        (("O", "B-person", "person"), "'person'"),
        (("b-person", "i-person", "o"), "'b-person'"),
        (("O", "U-person"), "'U-person'"),
        (("O", "B-"), "'B-'"),
    ],
)
def test_entities_need_tags_that_say_where_they_begin(tags: tuple[str, ...], found: str) -> None:
    with pytest.raises(FinetuneError, match=rf"--metrics entity_f1 for own: .*found {found}"):
        check_metrics(tagged(tags))


def test_tags_of_iob_and_iobes_and_without_types_are_taken() -> None:
    check_metrics(tagged(("B-person", "I-person", "O")))
    check_metrics(tagged(("B-x", "E-x", "I-x", "O", "S-x")))
    check_metrics(tagged(("B", "I", "O")))


def tagged(tags: tuple[str, ...]) -> TaskData:
    task = replace(TASKS["wnut17"], labels=None, metrics=("entity_f1",))
    return TaskData("own", task, tags, Split([], None), {}, {}, sha256="")


def test_entity_f1_by_hand() -> None:
    targets = [["B-X", "I-X", "O", "B-Y"], ["O", "O"]]
    predictions = [["B-X", "I-X", "O", "B-X"], ["O", "B-Y"]]
    assert entity_f1(targets, predictions) == pytest.approx(2 * 1 / (3 + 2))  # P 1/3, R 1/2
    assert entity_f1([["O"]], [["O"]]) == 0.0
    found = score_tags(("entity_f1", "accuracy"), targets, predictions)
    assert found["accuracy"] == pytest.approx(4 / 6)
