"""Several models of one task decide together (Zhao et al. 2020, their ensembles)."""

import numpy as np
import torch

from finetune.choices import VOTES
from finetune.errors import FinetuneError


def vote(logits: np.ndarray, how: str) -> np.ndarray:
    """Scores [N, C] of M models' logits [M, N, C]; the decision is their argmax.

    `label`: how many models choose the class; of equally many, the one that the earliest model
    chose is ahead by less than a vote. `probability`, `logit`: the mean of softmax or of logits.
    """
    if how == "logit":
        return logits.mean(axis=0)
    if how == "probability":
        return torch.from_numpy(logits).double().softmax(dim=-1).mean(dim=0).numpy()
    if how != "label":
        raise FinetuneError(f"ensemble: found {how!r}, expected one of {', '.join(VOTES)}.")
    models, rows, classes = logits.shape
    chosen = logits.argmax(axis=2)
    votes, first = np.zeros((rows, classes)), np.zeros((rows, classes))
    for model in reversed(range(models)):
        votes[np.arange(rows), chosen[model]] += 1
        # What stays is the earliest model's: the later a class is first chosen, the less it gets.
        first[np.arange(rows), chosen[model]] = (models - model) / (models + 1)
    return votes + first
