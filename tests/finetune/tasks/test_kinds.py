"""Tagging and multiple choice from files to scores; and what counts as a failed run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from finetune.glue import main
from finetune.jobs.load import load_model
from finetune.tasks import TASKS, load_task
from finetune.tasks.encode import IGNORED, Backbone, encode_task
from finetune.tasks.kinds import constant_scores, decide, health, score_answers
from finetune.tasks.metrics import entity_f1

WORDS = ["red", "blue", "green", "one", "two", "three", "sky", "sea", "tree", "house"]


@pytest.fixture(scope="module")
def word_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`wnut17` (colours in a row are one entity) and `swag` (the right ending is the context)."""
    folder = tmp_path_factory.mktemp("words")
    draw = np.random.default_rng(0)
    (folder / "wnut17").mkdir()
    (folder / "swag").mkdir()
    files = {"train": "wnut17train.conll", "dev": "emerging.dev.conll"}
    for split, count in (("train", 64), ("dev", 24), ("test", 9)):
        sentences, rows = [], ["sent1,sent2,ending0,ending1,ending2,ending3,label"]
        for _ in range(count):
            words = [str(word) for word in draw.choice(WORDS, draw.integers(2, 9))]
            tags, before = [], "O"
            for word in words:
                colour = word in WORDS[:3]
                tags.append(f"{'I' if before != 'O' else 'B'}-colour" if colour else "O")
                before = tags[-1]
            sentences.append("".join(f"{w}\t{t}\n" for w, t in zip(words, tags, strict=True)))
            context, answer = str(draw.choice(WORDS)), int(draw.integers(4))
            endings = [str(draw.choice(WORDS)) for _ in range(4)]
            endings[answer] = context
            rows.append(",".join([context, "one", *endings, str(answer)]))
        file = files.get(split, "emerging.test.annotated")
        (folder / "wnut17" / file).write_text("\n".join(sentences))
        name = {"dev": "val"}.get(split, split)
        (folder / "swag" / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def runs(tiny_model: Path, word_tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kinds")
    main(
        [
            *("--model_name_or_path", str(tiny_model), "--data_dir", str(word_tasks)),
            *("--output_dir", str(out), "--task_name", "wnut17", "swag", "--seed", "1"),
            *("--max_seq_length", "20", "--learning_rate", "0.01", "--num_train_epochs", "6"),
            *("--do_train", "--do_eval", "--do_predict", "--bf16", "false"),
        ]
    )
    return out


def sentences(path: Path) -> list[tuple[list[str], list[str]]]:
    blocks = path.read_text().strip().split("\n\n")
    pairs = [[line.split("\t") for line in block.split("\n")] for block in blocks]
    return [([w for w, _ in rows], [t for _, t in rows]) for rows in pairs]


def test_tags_by_hand(runs: Path, tiny_model: Path, word_tasks: Path) -> None:
    """One sentence at a time, no padding, no Trainer; words are single pieces here."""
    folder = runs / "wnut17" / "finetune" / "seed-1"
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert set(model.config.id2label.values()) == {"B-colour", "I-colour", "O"}

    def tag(words: list[str]) -> list[str]:
        with torch.no_grad():
            logits = model(**tokenizer(" ".join(words), return_tensors="pt")).logits[0, 1:-1]
        return [model.config.id2label[int(index)] for index in logits.argmax(-1)]

    dev = sentences(word_tasks / "wnut17" / "emerging.dev.conll")
    expected = entity_f1([tags for _, tags in dev], [tag(words) for words, _ in dev])
    results = json.loads((folder / "all_results.json").read_text())
    assert results["eval_entity_f1"] == pytest.approx(expected) and expected > 0.5
    lines = (folder / "predict_results_wnut17.txt").read_text().splitlines()
    test = sentences(word_tasks / "wnut17" / "emerging.test.annotated")
    assert lines == [" ".join(tag(words)) for words, _ in test]


def test_choices_by_hand(runs: Path, tiny_model: Path, word_tasks: Path) -> None:
    folder = runs / "swag" / "finetune" / "seed-1"
    model = AutoModelForMultipleChoice.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = [
        line.split(",") for line in (word_tasks / "swag" / "val.csv").read_text().split("\n")[1:-1]
    ]
    right = []
    for first, second, *endings, label in rows:
        pairs = tokenizer(
            [first] * 4, [f"{second} {end}" for end in endings], padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            logits = model(**{name: value[None] for name, value in pairs.items()}).logits
        right.append(int(logits.argmax()) == int(label))
    results = json.loads((folder / "all_results.json").read_text())
    assert results["eval_accuracy"] == pytest.approx(np.mean(right))
    assert load_model(folder, str(tiny_model)).__class__ is model.__class__


def test_only_first_tokens_carry_tags(
    tiny_model: Path, word_tasks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = load_task("wnut17", word_tasks)
    encoded = encode_task(data, Backbone.load(str(tiny_model)), 6)
    assert "words lie beyond 6 tokens" in caplog.text
    for row, tags in zip(encoded.train, data.train.targets or (), strict=True):
        kept = row["labels"][1:-1]
        assert row["labels"][0] == row["labels"][-1] == IGNORED
        assert kept == tags[: len(kept)] and len(row["labels"]) == len(row["input_ids"])  # type: ignore


def test_health() -> None:
    targets = np.array([0, 1, 1, 0])
    good = np.eye(2)[[0, 1, 0, 0]]
    task = TASKS["rte"]
    assert health(task, targets, good) == "ok"
    assert health(task, targets, np.zeros((4, 2))) == "collapsed"
    assert health(task, np.ones(4), np.zeros((4, 2))) == "ok"  # nothing else to answer
    assert health(task, targets, np.where(good == 1, np.nan, good)) == "diverged"
    assert health(TASKS["stsb"], np.arange(4.0), np.full((4, 1), 2.5)) == "collapsed"
    tags = np.array([[0, 1, IGNORED]])
    assert health(TASKS["pos"], tags, np.eye(3)[[[1, 1, 0]]]) == "collapsed"
    assert health(TASKS["pos"], tags, np.eye(3)[[[1, 0, 0]]]) == "ok"


def test_words_without_a_tag_are_not_scored() -> None:
    targets = np.array([[0, 1, IGNORED], [1, IGNORED, IGNORED]])
    logits = np.eye(2)[[[0, 0, 0], [1, 0, 0]]]
    answers = decide(logits, TASKS["pos"])
    found = score_answers(TASKS["pos"], ("X", "Y"), targets, answers)
    assert found == {"accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("task", "labels", "targets", "found"),
    [
        ("sst2", ("0", "1"), [0, 1, 1, 1], {"accuracy": 0.75}),
        # F1 of the second class where everything is called it: precision 2/3, recall 1.
        ("mrpc", ("0", "1"), [0, 1, 1], {"accuracy": 2 / 3, "f1": 0.8, "combined_score": 11 / 15}),
        ("cola", ("0", "1"), [0, 1, 1], {"matthews_correlation": 0.0}),
        ("stsb", (), [1.0, 2.0, 4.5], {"pearson": 0.0, "spearmanr": 0.0, "combined_score": 0.0}),
        ("wnut17", ("B-x", "O"), [[1, 0, IGNORED], [1, 1, 1]], {"entity_f1": 0.0}),
    ],
)
def test_one_answer_to_everything(
    task: str, labels: tuple[str, ...], targets: list, found: dict[str, float]
) -> None:
    assert constant_scores(TASKS[task], labels, np.array(targets)) == pytest.approx(found)
