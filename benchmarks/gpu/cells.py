"""What is compared with each other: the shapes, and the variants of each."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import NamedTuple

import torch

from benchmarks.step_variants import VANILLA, Variant
from benchmarks.tiny_run import ROOT
from pretrain.config_parser import load_config
from pretrain.recipe import MaskingConfig, ModelConfig

VOCAB_SIZE = 50265  # RoBERTa's
TOKENS_PER_GIB = {"base": 256, "large": 128}  # of a micro-batch, by the GPU's memory


class Cell(NamedTuple):
    """What is compared with each other."""

    size: str
    seq_len: int

    @property
    def name(self) -> str:
        """As a key of the records."""
        return f"{self.size}-{self.seq_len}"


CELLS = (Cell("base", 128), Cell("large", 128), Cell("base", 512), Cell("large", 512))
TINY = (Cell("tiny", 32),)


def shape_of(cell: Cell) -> tuple[ModelConfig, MaskingConfig]:
    """The model and the recommended recipe of `configs/pretrain/SIZE.yaml`."""
    positions = cell.seq_len + 2
    if cell.size == "tiny":
        model = ModelConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=positions,
            dropout=0.0,
            vocab_size=300,
        )
        return model, MaskingConfig(rate=0.5, loss_fraction=0.6, insert_layer=1)
    config = load_config(ROOT / f"configs/pretrain/{cell.size}.yaml")
    model = replace(
        config.model, vocab_size=VOCAB_SIZE, dropout=0.0, max_position_embeddings=positions
    )
    return model, config.masking


def variants_of(config: ModelConfig, recommended: MaskingConfig, *, bf16: bool) -> list[Variant]:
    """What is measured of one shape, in the order of the report."""
    depth = config.num_hidden_layers
    paper = MaskingConfig(rate=0.5, insert_layer=depth, late_layers=2)
    flash = bf16 and importlib.util.find_spec("flash_attn") is not None
    variants = [
        Variant("Hugging Face, Trainer's autocast", None, False, True, True, "sdpa") if bf16
        else Variant("Hugging Face", None, False, False, attention="sdpa"),
        *([Variant("Hugging Face, bf16 weights", None, False, True, attention="sdpa")]
          if bf16 else []),
        *([Variant("Hugging Face, bf16 weights, flash_attention_2", None, False, True,
                   attention="flash_attention_2")] if flash else []),
        Variant("Hugging Face, compiled", None, True, bf16, attention="sdpa"),
    ]  # fmt: skip
    for name, masking in (
        ("vanilla 15 %", VANILLA),
        (f"the paper's: k = {depth}, d = 2, 50 %", paper),
        ("recommended", recommended),
    ):
        variants += [
            Variant(f"{name}, eager", masking, False, bf16),
            Variant(f"{name}, compiled", masking, True, bf16),
        ]
    return variants


def micro_batch_size(cell: Cell, device: torch.device) -> int:
    """Sequences: a power of two of tokens that Hugging Face's logits leave room for."""
    if cell.size == "tiny":
        return 4
    gib = torch.cuda.get_device_properties(device).total_memory / 2**30
    tokens = 2 ** int(gib * TOKENS_PER_GIB[cell.size]).bit_length() // 2
    return max(1, tokens // cell.seq_len)


def precision_of(variant: Variant) -> str:
    """For people."""
    if not variant.bf16:
        return "fp32"
    return "bf16 autocast" if variant.autocast else "bf16"
