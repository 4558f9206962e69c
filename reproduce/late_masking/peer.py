"""Hugging Face's RoBERTa trained by its `Trainer`, on the same data, for a run to be compared with.

    python -m reproduce.late_masking.peer CONFIG --start ours|stock --output FOLDER

CONFIG is that of a vanilla 15 % run of pretrain/main.py: same shards, tokenizer, size, batch,
number of steps and AdamW with the same schedule, in the precision in which a few of its steps are
fastest. Masks come from DataCollatorForLanguageModeling. The loss is measured at our frozen
selection of tokens; what that takes does not count for its clock, while our runs' clocks hold
theirs.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from finetune.files import write_text
from pretrain.architectures import architecture_of
from pretrain.config import PretrainConfig
from pretrain.config_parser import load_config
from pretrain.data import Sequences, ShardFolder
from pretrain.evaluate import evaluation_batches, evaluation_masking
from pretrain.flops import training_flops
from pretrain.initialise import initialise
from pretrain.main import resolve
from pretrain.masking import IGNORE, MaskedBatch
from pretrain.model import LateMaskModel
from pretrain.optim import learning_rate
from pretrain.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

TRIAL_STEPS = 20  # of which the first half warms up


class TokenSequences(Dataset[dict[str, Any]]):
    """The training sequences as run_mlm.py hands them to the collator."""

    def __init__(self, sequences: Sequences, vocabulary: Vocabulary) -> None:
        self._sequences = sequences
        self._is_special = vocabulary.is_special

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self._sequences[np.array([index])][0]
        special = self._is_special[ids].astype(np.int64)
        return {"input_ids": ids, "special_tokens_mask": special}


def stock_batch(batch: MaskedBatch, mask_id: int) -> tuple[Tensor, Tensor]:
    """Sequences whose selected positions are all masked, in reading order, for stock models.

    Returns:
        [B, T] input ids with <mask>s, and [B, T] labels, IGNORE where nothing is predicted.
    """
    ids = np.full(batch.position_ids.shape, mask_id)
    visible = batch.input_ids.shape[1]
    np.put_along_axis(ids, batch.position_ids[:, :visible], batch.input_ids, axis=1)
    labels = np.full(batch.position_ids.shape, IGNORE)
    predicted = batch.labels.shape[1]
    np.put_along_axis(labels, batch.position_ids[:, -predicted:], batch.labels, axis=1)
    return torch.from_numpy(ids), torch.from_numpy(labels)


@torch.no_grad()
def frozen_loss(model: PreTrainedModel, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Mean cross-entropy in nats of a stock model over the predicted tokens of `batches`."""
    model.eval()
    losses = [
        model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss.item()
        for ids, labels in batches
    ]
    model.train()
    # Batches have different numbers of labels: the last one is filled up with sequences without.
    predicted = [(labels != IGNORE).sum().item() for _, labels in batches]
    return float(np.average(losses, weights=predicted))


def frozen_batches(config: PretrainConfig, data: ShardFolder) -> list[tuple[Tensor, Tensor]]:
    """The validation set of pretrain/evaluate.py for stock models."""
    batches = evaluation_batches(
        data.sequences("valid"), evaluation_masking(config.masking), data.vocabulary,
        batch_size=config.data.micro_batch_size, sequences=config.run.eval_sequences,
    )  # fmt: skip
    return [stock_batch(batch, data.vocabulary.mask) for batch in batches]


def stock_model(config: PretrainConfig, data: ShardFolder, start: str) -> PreTrainedModel:
    """RoBERTa of the config's size, drawn by transformers (`stock`) or as ours is (`ours`)."""
    torch.manual_seed(config.run.seed)
    architecture = architecture_of(config.model)
    hf_config = architecture.to_stock_config(config.model)
    if start == "stock":
        hf_config.initializer_range = 0.02
        return AutoModelForMaskedLM.from_config(hf_config)
    model: PreTrainedModel = AutoModelForMaskedLM.from_config(hf_config)
    ours = LateMaskModel(config.model, config.masking)
    initialise(ours, config.run.seed)
    weights: dict[str, Tensor] = dict(ours.named_parameters())
    prefix = f"{model.base_model_prefix}."
    encoder = {
        prefix + n: tensor
        for n, tensor in architecture.to_stock_weights(weights, config.model).items()
    }
    model.load_state_dict(encoder | architecture.to_stock_head(weights, config.model))
    return model


def stock_optimizer(
    model: PreTrainedModel, config: PretrainConfig, steps: int
) -> tuple[AdamW, LambdaLR]:
    """Fused AdamW on a stock model, and the rates of pretrain/optim.py at each of `steps` steps."""
    optimizer = config.optimizer
    members: dict[bool, list[nn.Parameter]] = defaultdict(list)
    for parameter in model.parameters():
        members[parameter.ndim >= 2].append(parameter)
    adamw = AdamW(
        [{"params": parameters, "weight_decay": optimizer.weight_decay * decays}
         for decays, parameters in members.items()],
        lr=optimizer.lr, betas=optimizer.betas, eps=optimizer.eps, fused=True,
    )  # fmt: skip

    def scale(step: int) -> float:
        return learning_rate(optimizer, step / steps) / optimizer.lr

    return adamw, LambdaLR(adamw, scale)


class Clock(TrainerCallback):
    """Seconds of training since the first step began, less those of the evaluations."""

    def __init__(self, every: int, measure: Callable[[], float]) -> None:
        self.seconds = 0.0
        self.points: list[dict[str, float]] = []
        self._every, self._measure = every, measure
        self._last: float | None = None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start, at the first step."""
        self._last = self._last or time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop; evaluate where it is due; go on."""
        assert self._last is not None
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self._last
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            loss = self._measure()
            point = {"step": state.global_step, "hours": self.seconds / 3600, "loss": loss}
            self.points.append(point)
            logger.info("step %d: validation loss %.4f", state.global_step, loss)
        self._last = time.perf_counter()


def train(
    config: PretrainConfig, data: ShardFolder, start: str, steps: int, bf16: bool, evaluate: bool
) -> Clock:
    """`steps` steps of the Trainer; the clock holds what it took and found."""
    model = stock_model(config, data, start)
    batches = frozen_batches(config, data)
    clock = Clock(
        config.run.eval_every if evaluate else steps,
        lambda: frozen_loss(model, batches) if evaluate else float("nan"),
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            seed=config.run.seed,
            max_steps=steps,
            per_device_train_batch_size=config.data.global_batch_size,
            max_grad_norm=config.optimizer.gradient_clipping,
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
            logging_steps=config.run.log_every,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,  # special_tokens_mask, which saves the collator time
        )
        collator = DataCollatorForLanguageModeling(
            AutoTokenizer.from_pretrained(data.path), mlm_probability=config.masking.rate
        )
        Trainer(
            model, arguments, collator, TokenSequences(data.sequences("train"), data.vocabulary),
            callbacks=[clock],
            optimizers=stock_optimizer(model, config, steps),
        ).train()  # fmt: skip
    return clock


def faster_in_bf16(config: PretrainConfig, data: ShardFolder) -> bool:
    """Whether a few steps take less time under bf16 autocast than in fp32."""
    seconds = {}
    for bf16 in (False, True):
        train(config, data, "stock", 2, bf16, evaluate=False)  # warms up
        seconds[bf16] = train(config, data, "stock", TRIAL_STEPS, bf16, evaluate=False).seconds
    return seconds[True] < seconds[False]


def main(argv: Sequence[str]) -> None:
    """Train, and write FOLDER/curve.jsonl when all is done."""
    parser = argparse.ArgumentParser(prog="python -m reproduce.late_masking.peer")
    parser.add_argument("config", type=Path, help="YAML of the vanilla 15 %% run")
    parser.add_argument("--start", choices=("ours", "stock"), default="ours")
    parser.add_argument("--output", type=Path, required=True, help="folder for curve.jsonl")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, force=True)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = load_config(args.config)
    data = ShardFolder(config.data.path)
    config = resolve(config, data)
    assert config.budget.flops is not None, "written by experiment.write_config"
    tokens = config.data.global_batch_size * data.seq_len
    flops = config.data.global_batch_size * training_flops(
        config.model, config.masking, data.seq_len
    )
    steps = math.ceil(config.budget.flops / flops)
    bf16 = faster_in_bf16(config, data)
    clock = train(config, data, args.start, steps, bf16, evaluate=True)
    args.output.mkdir(parents=True, exist_ok=True)
    about = {"seed": config.run.seed, "precision": "bf16" if bf16 else "fp32"}
    records = [about | point | {"tokens": point["step"] * tokens} for point in clock.points]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    write_text(args.output / "curve.jsonl", lines)


if __name__ == "__main__":
    main(sys.argv[1:])
