"""A small model whose every weight matters, rows for it, and what it is fed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch._dynamo
from torch import Tensor

from pretrain.initialise import initialise
from pretrain.masking import MaskedBatch, mask_sequences
from pretrain.model import LateMaskModel, MlmOutput
from pretrain.recipe import MaskingConfig, ModelConfig
from pretrain.vocabulary import Vocabulary

SEQ_LEN, VOCAB, MASK = 24, 60, 59
VOCABULARY = Vocabulary.robertas(VOCAB)


def make_model(
    architecture: str = "roberta", tied: bool = True, **masking: object
) -> LateMaskModel:
    config = ModelConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=SEQ_LEN + 2,
        architecture=architecture,  # type: ignore[arg-type]
        initializer_range=None,  # 0.02 would make every effect too small to be seen here
        tie_word_embeddings=tied,
        vocab_size=VOCAB,
    )
    model = LateMaskModel(config, MaskingConfig(**masking))  # type: ignore[arg-type]
    initialise(model, seed=1)
    with torch.no_grad():  # biases and norms away from 0 and 1, or mistakes there would not show
        for parameter in model.parameters():
            if parameter.ndim == 1 or len(parameter) == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def make_rows(count: int = 5, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).integers(4, VOCAB - 1, size=(count, SEQ_LEN))
    rows[:, 0], rows[:, -1] = 0, 2
    return rows


def corrupt(model: LateMaskModel, rows: np.ndarray, seed: int = 0) -> MaskedBatch:
    return mask_sequences(
        rows,
        np.arange(len(rows)),
        masking=model.masking,
        vocabulary=VOCABULARY,
        seed=seed,
        epoch=0,
    )


def tensors(batch: MaskedBatch) -> list[Tensor]:
    return [torch.from_numpy(array) for array in batch]


def in_place(batch: MaskedBatch) -> tuple[Tensor, Tensor, Tensor]:
    """[B, SEQ_LEN] the rows in reading order with <mask> at the masked positions; which they are;
    which hold nothing at all.
    """
    input_ids, positions, _ = tensors(batch)
    masked = positions[:, input_ids.shape[1] :]
    ids = torch.zeros(len(positions), SEQ_LEN, dtype=torch.long).scatter(
        1, positions, torch.cat([input_ids, torch.full_like(masked, MASK)], dim=1)
    )
    nowhere = torch.zeros_like(ids, dtype=torch.bool)
    return ids, nowhere.scatter(1, masked, True), ~nowhere.scatter(1, positions, True)


def assert_one_graph(model: LateMaskModel, batches: list[list[Tensor]]) -> None:
    """Compiled, the model makes one graph for all `batches` and computes what it does eagerly."""

    def step(run: Callable[..., MlmOutput], batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        model.zero_grad()
        output = run(*batch)
        output.loss_sum.backward()
        return output.loss_sum.detach(), model.layers[0].qkv.weight.grad.clone()

    eager = [step(model, batch) for batch in batches]
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch, expected in zip(batches, eager, strict=True):
            torch.testing.assert_close(step(compiled, batch), expected, atol=1e-4, rtol=1e-4)
