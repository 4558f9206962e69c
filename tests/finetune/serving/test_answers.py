"""Whole models that answer: one forward at a time, and what a diverged one says."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune.predict import main
from finetune.serving.answers import Answerer, Request, Separate
from finetune.serving.lines import json_values
from finetune.tasks.encode import Backbone


def finetuned(tiny_model: Path, labels: int = 3) -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=labels).eval()


def test_threads_wait_for_each_other(tiny_model: Path) -> None:
    """However many ask, one forward runs at a time."""
    model = finetuned(tiny_model)
    forward, inside, seen = model.forward, [], []

    def slow(**inputs: Any) -> Any:
        inside.append(None)
        seen.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return forward(**inputs)

    model.forward = slow
    answerer = Answerer(Separate({"one": model, "two": model}), Backbone.load(str(tiny_model)))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(answerer.answer, [[Request("red sky")]] * 16))
    assert all(answer == answers[0] for answer in answers)
    assert seen == [1] * 32


@pytest.mark.parametrize("labels", [1, 3])
def test_what_a_diverged_model_answers_is_json(
    tiny_model: Path, tmp_path: Path, labels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    model = finetuned(tiny_model, labels)
    torch.nn.init.constant_(model.classifier.out_proj.bias, float("nan"))
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("red sky\nblue\n")
    capsys.readouterr()
    main([str(tmp_path / "texts.txt"), "--model_name_or_path", str(tmp_path / "model")])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    answers = [
        json.loads(line, parse_constant=refuse) for line in capsys.readouterr().out.splitlines()
    ]
    nothing = dict.fromkeys(["LABEL_0", "LABEL_1", "LABEL_2"])
    expected = {"label": None, "probabilities": nothing} if labels > 1 else {"score": None}
    assert answers == [{"line": line, "task": "model"} | expected for line in (1, 2)]


def test_finite_answers_stay_as_they_are() -> None:
    for answer in (
        {"task": "t", "label": "a", "probabilities": {"a": 0.75, "b": 0.25}},
        {"task": "t", "words": ["x"], "labels": ["O"]},
        {"label": "a", "votes": {"a": 2, "b": 1}},
        {"score": -1.5},
    ):
        assert json_values(answer) == answer
