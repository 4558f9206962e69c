"""Texts in, answers out: requests for any of several tasks, grouped and batched.

A request is answered by the task it names, or by every task if it names none. Requests that ask for
the same tasks are batched together by length, and a batch is answered by all of them in turn.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from finetune.errors import FinetuneError
from finetune.serving.ensemble import vote
from finetune.serving.resident import Resident
from finetune.tasks.encode import Backbone
from finetune.text import check_text

logger = logging.getLogger(__name__)

AMOUNTS = {1: "one text", 2: "a text and its pair"}
AUTO_CLASSES = {
    "SequenceClassification": AutoModelForSequenceClassification,
    "TokenClassification": AutoModelForTokenClassification,
}


@dataclass(frozen=True)
class Request:
    """A text (or its words, for tagging), a second text for pair tasks, and the task asked."""

    text: str | list[str]
    pair: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class Readout:
    """What is needed to read a task's logits. No labels: a regression."""

    labels: list[str]
    tags_words: bool


class Models(Protocol):
    """What answers: the logits of each task."""

    def logits(
        self, tasks: Sequence[str], inputs: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Of each task the logits [B, C], or [B, T, C] of a tagging task."""


class Separate:
    """Finetuned models, each whole, by task name.

    Calls from several threads wait for each other, as those of `Resident`.
    """

    def __init__(self, models: dict[str, PreTrainedModel]) -> None:
        self.models = models
        self._lock = threading.Lock()

    def logits(
        self, tasks: Sequence[str], inputs: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Output of the model of each of `tasks`, fp32 on the CPU."""
        found = {}
        with self._lock, torch.inference_mode():
            for task in tasks:
                model = self.models[task]
                batch = {name: tensor.to(model.device) for name, tensor in inputs.items()}
                found[task] = model(**batch).logits.float().cpu()
        return found


def readouts_of(models: Resident | Separate) -> dict[str, Readout]:
    """The tasks of either kind of `Models`; those whose answers can't be told are refused."""
    heads = {}
    tasks: dict[str, PreTrainedModel] = (
        {name: task.model for name, task in models.tasks.items()}
        if isinstance(models, Resident)
        else models.models
    )
    for name, model in tasks.items():
        kind = type(model).__name__.rpartition("For")[2]
        if kind not in AUTO_CLASSES:
            raise FinetuneError(
                f"{name}: a {type(model).__name__}; answers can be given by models for "
                f"{' and '.join(AUTO_CLASSES)}."
            )
        config: Any = model.config
        regression = config.problem_type == "regression" or config.num_labels == 1
        labels = [] if regression else [config.id2label[i] for i in range(config.num_labels)]
        heads[name] = Readout(labels, kind == "TokenClassification")
    return heads


class Answerer:
    """Tokenizes, groups, batches, and says what the logits mean.

    `max_length` is in tokens; longer texts are cut. With `ensemble`, all tasks vote together.
    `texts` says of a task, where it is known, whether it takes one text or two.
    """

    def __init__(
        self,
        models: Resident | Separate,
        backbone: Backbone,
        max_length: int = 128,
        batch_size: int = 32,
        ensemble: str | None = None,
        texts: Mapping[str, int] | None = None,
    ) -> None:
        self.models: Models = models
        self.readouts = readouts_of(models)
        self.tokenizer = backbone.tokenizer
        self.texts = texts or {}
        self.max_length = min(max_length, backbone.positions)
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        if self.max_length <= special:
            raise FinetuneError(
                f"--max_length: found {max_length}, expected more than the {special} tokens that "
                "the tokenizer sets around a pair."
            )
        self.batch_size = batch_size
        self.ensemble = ensemble
        tags_words = any(head.tags_words for head in self.readouts.values())
        self.word_tokenizer = backbone.word_tokenizer if tags_words else None
        self._cut = 0
        self._warned: set[tuple[str, int]] = set()
        if ensemble is not None:
            different = {tuple(head.labels) for head in self.readouts.values()}
            tags = any(head.tags_words for head in self.readouts.values())
            if len(different) > 1 or different == {()} or tags:
                raise FinetuneError(
                    "--ensemble: the masks have to classify texts into the same labels; found "
                    + "; ".join(f"{n}: {', '.join(h.labels)}" for n, h in self.readouts.items())
                )

    def check(self, request: Request) -> None:
        """FinetuneError for a request that no model could answer."""
        if request.task is not None and request.task not in self.readouts:
            raise FinetuneError(
                f"task: found {request.task!r}, expected one of {', '.join(self.readouts)}."
            )
        words = request.text if isinstance(request.text, list) else request.text.split()
        if not words:
            raise FinetuneError("text: found no words.")
        for name, texts in (("text", words), ("pair", [request.pair or ""])):
            try:
                check_text("".join(texts))
            except ValueError as error:
                raise FinetuneError(f"{name}: {error}.") from None

    def answer(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        """One answer per request and task it asks, in that order; ensembles give one a request."""
        for request in requests:
            self.check(request)
            self._compare_texts(request)
        encoded = _Encoded(self, requests)
        outputs: dict[tuple[int, str], np.ndarray] = {}
        for (tasks, by_words), indices in self._alike(requests).items():
            order = sorted(indices, key=lambda i: -encoded.length(i, by_words))
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                found = self.models.logits(tasks, encoded.batch(batch, by_words))
                self._cut += sum(encoded.is_cut(index, by_words) for index in batch)
                for task, logits in found.items():
                    for index, row in zip(batch, logits.numpy(), strict=True):
                        outputs[index, task] = row
        answers = []
        for index, request in enumerate(requests):
            if self.ensemble:
                rows = np.stack([outputs[index, task] for task in self.readouts])
                answers.append(self._vote(rows))
                continue
            for task in [request.task] if request.task else self.readouts:
                words = encoded.first_tokens(index) if self.readouts[task].tags_words else []
                answers.append({"task": task, **self._read(task, outputs[index, task], words)})
        return answers

    def _compare_texts(self, request: Request) -> None:
        """A warning, once for each task, of a pair that is missing or not wanted."""
        found = 1 if request.pair is None else 2
        for task in [request.task] if request.task else self.readouts:
            expected = self.texts.get(task, found)
            if expected != found and (task, found) not in self._warned:
                self._warned.add((task, found))
                logger.warning(
                    "%s: found %s, but it was trained on %s; first for %r",
                    task,
                    AMOUNTS[found],
                    AMOUNTS[expected],
                    str(request.text)[:40],
                )

    def warn_of_cut_texts(self) -> None:
        """How many texts were too long since the last call; nothing if none was."""
        if self._cut:
            logger.warning(
                "%d texts were cut to %d tokens; --max_length sets more, up to the model's own",
                self._cut,
                self.max_length,
            )
        self._cut = 0

    def _alike(self, requests: Sequence[Request]) -> dict[tuple[tuple[str, ...], bool], list[int]]:
        """Indices of the requests by the tasks that they ask, apart for those that tag words."""
        alike: dict[tuple[tuple[str, ...], bool], list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            asked = [request.task] if request.task and not self.ensemble else list(self.readouts)
            for by_words in (False, True):
                tasks = tuple(task for task in asked if self.readouts[task].tags_words is by_words)
                if tasks:
                    alike[tasks, by_words].append(index)
        return alike

    def _read(self, task: str, logits: np.ndarray, words: list[tuple[str, int]]) -> dict[str, Any]:
        head = self.readouts[task]
        if head.tags_words:
            # As in training: a word's tag is read at its first token; words cut off have none.
            chosen = logits.argmax(axis=1)
            tags = [head.labels[chosen[token]] if token >= 0 else None for _, token in words]
            return {"words": [word for word, _ in words], "labels": tags}
        if not head.labels:
            return {"score": float(logits[0])}
        return _decision(head.labels, torch.from_numpy(logits).softmax(dim=0).numpy())

    def _vote(self, logits: np.ndarray) -> dict[str, Any]:
        assert self.ensemble is not None
        scores = vote(logits[:, None], self.ensemble)[0]
        labels = next(iter(self.readouts.values())).labels
        if self.ensemble == "logit":
            scores = torch.from_numpy(scores).softmax(dim=0).numpy()
        if self.ensemble == "label":
            counts = np.bincount(logits.argmax(axis=1), minlength=len(labels))
            votes = {label: int(count) for label, count in zip(labels, counts, strict=True)}
            return {"label": labels[int(scores.argmax())], "votes": votes}
        return _decision(labels, scores)


def _decision(labels: list[str], probabilities: np.ndarray) -> dict[str, Any]:
    return {
        "label": labels[int(probabilities.argmax())],
        "probabilities": {
            label: round(float(p), 6) for label, p in zip(labels, probabilities, strict=True)
        },
    }


class _Encoded:
    """The requests' tokens, made once for each of the two ways of tokenizing, when first asked."""

    def __init__(self, answerer: Answerer, requests: Sequence[Request]) -> None:
        self.answerer, self.requests = answerer, requests
        self.rows: dict[tuple[int, bool], Any] = {}

    def _row(self, index: int, by_words: bool) -> Any:
        if (index, by_words) not in self.rows:
            request, owner = self.requests[index], self.answerer
            text = request.text
            options: dict[str, Any] = {"truncation": True, "max_length": owner.max_length}
            if by_words:
                assert owner.word_tokenizer is not None
                words = text if isinstance(text, list) else text.split()
                row = owner.word_tokenizer(words, is_split_into_words=True, **options)
            else:
                text = " ".join(text) if isinstance(text, list) else text
                row = owner.tokenizer(text, request.pair, **options)
            self.rows[index, by_words] = row
        return self.rows[index, by_words]

    def length(self, index: int, by_words: bool) -> int:
        return len(self._row(index, by_words)["input_ids"])

    def is_cut(self, index: int, by_words: bool) -> bool:
        return bool(self._row(index, by_words).encodings[0].overflowing)

    def batch(self, indices: Sequence[int], by_words: bool) -> dict[str, torch.Tensor]:
        rows = [dict(self._row(index, by_words)) for index in indices]
        merged = {name: [row[name] for row in rows] for name in rows[0]}
        return dict(self.answerer.tokenizer.pad(merged, return_tensors="pt"))

    def first_tokens(self, index: int) -> list[tuple[str, int]]:
        """(word, index of its first token, -1 where it was cut off)."""
        text = self.requests[index].text
        words = text if isinstance(text, list) else text.split()
        tokens: dict[int, int] = {}
        for token, word in enumerate(self._row(index, True).word_ids()):
            if word is not None:
                tokens.setdefault(word, token)
        return [(word, tokens.get(number, -1)) for number, word in enumerate(words)]
