"""Hugging Face's Trainer with batches by length and a learning rate for the head."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler


class JobTrainer(Trainer):
    """The Trainer, batching rows of like length by what `Rows` knows of them.

    `head` are parameters that train at `classifier_learning_rate`, where that is given: the rates
    of a mask's scores are 10 to 100 times those of weights.
    """

    def __init__(
        self,
        *args: Any,
        head: frozenset[nn.Parameter],
        classifier_learning_rate: float | None,
        **kwargs: Any,
    ) -> None:
        self.head, self.classifier_learning_rate = head, classifier_learning_rate
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's, its groups split where the head has a rate of its own."""
        if self.optimizer is not None:
            return self.optimizer
        optimizer = super().create_optimizer(model)
        if self.classifier_learning_rate is not None:
            optimizer.param_groups[:] = [
                part for group in optimizer.param_groups for part in self._split(group)
            ]
        return optimizer

    def _split(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        body = [p for p in group["params"] if p not in self.head]
        head = [p for p in group["params"] if p in self.head]
        parts = [group | {"params": body}]
        parts.append(group | {"params": head, "lr": self.classifier_learning_rate})
        return [part for part in parts if part["params"]]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        # The stock one takes the number of choices for the length of a multiple-choice row.
        rows: Any = self.train_dataset
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch, lengths=rows.lengths.tolist())

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler:
        # With train_sampling_strategy="group_by_length" the stock one also regroups these rows,
        # and gives predictions back in that order. They come sorted by length.
        return SequentialSampler(eval_dataset)
