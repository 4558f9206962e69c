"""A model's outputs over rows of a task, in fp32, batched by length, on the GPU if there is one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import DataCollatorWithPadding, PreTrainedModel

from finetune.tasks import TaskData
from finetune.tasks.encode import Backbone, Rows, by_length
from finetune.tasks.kinds import decide, score_answers

BATCH = 64


def device() -> torch.device:
    """Where the figures compute."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def logits(model: PreTrainedModel, rows: Rows, backbone: Backbone) -> np.ndarray:
    """Logits [N, C] in the order of `rows`, without dropout."""
    return _outputs(model, rows, backbone, lambda output: output.logits)


def first_token_states(model: PreTrainedModel, rows: Rows, backbone: Backbone) -> np.ndarray:
    """Last-layer states of the first token, [N, width], of a model without head."""
    return _outputs(model, rows, backbone, lambda output: output.last_hidden_state[:, 0])


def score(data: TaskData, rows: Rows, found: np.ndarray) -> float:
    """The task's first metric of logits [N, C]."""
    return score_classes(data, rows, decide(found, data.task))


def score_classes(data: TaskData, rows: Rows, answers: np.ndarray) -> float:
    """The task's first metric of class ids [N]."""
    metrics = score_answers(data.task, data.labels, targets(rows), answers)
    return metrics[data.task.metrics[0]]


def loss(rows: Rows, found: np.ndarray) -> float:
    """Mean cross-entropy of logits [N, C], in nats."""
    return float(F.cross_entropy(torch.from_numpy(found), torch.from_numpy(targets(rows)).long()))


def targets(rows: Rows) -> np.ndarray:
    """Class ids [N]."""
    assert rows.targets is not None
    return rows.targets


@torch.inference_mode()
def _outputs(model: PreTrainedModel, rows: Rows, backbone: Backbone, read: Any) -> np.ndarray:
    model.to(device()).float().eval()  # type: ignore[arg-type]
    parts, places = [], []
    for indices, batch in _batches(rows, backbone):
        parts.append(read(model(**batch)).cpu().numpy())
        places.append(indices)
    found = np.concatenate(parts)
    ordered = np.empty_like(found)
    ordered[np.concatenate(places)] = found
    return ordered


def _batches(rows: Rows, backbone: Backbone) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    collate = DataCollatorWithPadding(backbone.tokenizer)
    order = by_length(rows)
    for indices in np.array_split(order, -(-len(rows) // BATCH)):
        batch = collate([{k: v for k, v in rows[i].items() if k != "labels"} for i in indices])
        yield indices, {name: tensor.to(device()) for name, tensor in batch.items()}
