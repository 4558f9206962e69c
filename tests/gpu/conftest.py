"""Engines, batches and a device for tests of what only a GPU can show; skipped where there is none.

`GPU_TESTS_DEVICE=cpu` runs on a CPU whatever has a meaning there, so that the tests themselves can
be tried before a GPU is at hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pretrain.budget import BudgetConfig
from pretrain.config import DataConfig, PretrainConfig, RunConfig
from pretrain.config_parser import load_config
from pretrain.engine import Engine
from pretrain.initialise import initialise
from pretrain.masking import MaskedBatch, mask_sequences
from pretrain.model import LateMaskModel
from pretrain.ranks import Launch, join
from pretrain.recipe import MaskingConfig, ModelConfig, OptimizerConfig
from pretrain.vocabulary import Vocabulary

ROOT = Path(__file__).parents[2]
VOCAB, SEQ_LEN = 300, 32
MODEL = ModelConfig(
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=SEQ_LEN + 2,
    dropout=0.0,  # its noise would differ between the runs that are compared
    initializer_range=None,
    vocab_size=VOCAB,
)
MASKING = MaskingConfig(rate=0.5, insert_layer=2)
ON_CPU = os.environ.get("GPU_TESTS_DEVICE") == "cpu"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, in a process group of one rank; the CPU where that was asked for."""
    if not torch.cuda.is_available() and not ON_CPU:
        pytest.skip("no CUDA device")
    if not torch.distributed.is_initialized():
        join(Launch(), run="tests/gpu")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def cuda(request: pytest.FixtureRequest) -> torch.device:
    """The GPU, for what a CPU can't stand in for."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.getfixturevalue("device")


def model_config(size: str) -> tuple[ModelConfig, MaskingConfig]:
    """Shape and recipe of `configs/pretrain/SIZE.yaml` with RoBERTa's vocabulary."""
    config = load_config(ROOT / f"configs/pretrain/{size}.yaml")
    config.model = replace(config.model, vocab_size=50265)
    return config.model, config.masking


@lru_cache
def sequences(vocab_size: int, seq_len: int, count: int = 512) -> NDArray[np.int64]:
    """[count, seq_len] token ids, each followed by one of two: there is something to learn."""
    draw = np.random.default_rng(0)
    follows = draw.integers(4, vocab_size - 1, size=(vocab_size, 2))
    rows = np.zeros((count, seq_len), dtype=np.int64)
    rows[:, 1] = draw.integers(4, vocab_size - 1, size=count)
    for position in range(2, seq_len - 1):
        rows[:, position] = follows[rows[:, position - 1], draw.integers(2, size=count)]
    rows[:, -1] = 2
    return rows


def make_batch(
    count: int, masking: MaskingConfig = MASKING, model: ModelConfig = MODEL, start: int = 0
) -> MaskedBatch:
    """`count` corrupted sequences, those from `start` on."""
    vocab_size, seq_len = model.known_vocab_size, model.max_position_embeddings - 2
    indices = np.arange(start, start + count)
    rows = sequences(vocab_size, seq_len)[indices]
    vocabulary = Vocabulary.robertas(vocab_size)
    return mask_sequences(rows, indices, masking=masking, vocabulary=vocabulary, seed=0, epoch=0)


def make_model(model: ModelConfig = MODEL, masking: MaskingConfig = MASKING) -> LateMaskModel:
    """The same weights at every call."""
    made = LateMaskModel(model, masking)
    initialise(made, seed=0)
    return made


@pytest.fixture
def make_engine(device: torch.device) -> Iterator[Callable[..., Engine]]:
    """Makes engines over equal models, and closes them after the test."""
    engines: list[Engine] = []

    def make(
        zero: str = "zero1",
        *,
        precision: str = "bf16",
        compiled: bool = False,
        batch_size: int = 16,
        micro_batch_size: int = 16,
    ) -> Engine:
        config = PretrainConfig(
            data=DataConfig(
                path="unused", global_batch_size=batch_size, micro_batch_size=micro_batch_size
            ),
            run=RunConfig(
                output_dir="unused",
                precision=precision,  # type: ignore[arg-type]
                compile=compiled,
                deepspeed_config=str(ROOT / f"configs/deepspeed/{zero}.json"),
            ),
            budget=BudgetConfig(steps=100),
            masking=MASKING,
            model=MODEL,
            optimizer=OptimizerConfig(lr=1e-3),
        )
        torch._dynamo.reset()
        engines.append(Engine(make_model(), config, device))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
    torch._dynamo.reset()
