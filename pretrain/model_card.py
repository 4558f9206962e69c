"""The README.md of an exported model: data, recipe, compute, losses, and what it can't do."""

from __future__ import annotations

import json
from pathlib import Path

from pretrain.config import PretrainConfig
from pretrain.data import ShardFolder
from pretrain.optim import Progress

_LATE = """The [MASK]s entered at layer {k} of {layers}{late}, so the early layers never saw one:
use this encoder for finetuning as any RoBERTa; to fill masks, use
`python -m pretrain.fill_mask {{folder}}`, which inserts them where they belong. No stock `lm_head`
is in the folder, since the stock forward pass could not use it."""
_VANILLA = "Ordinary masked language modelling: the stock fill-mask pipeline works."


def model_card(config: PretrainConfig, data: ShardFolder, progress: Progress, history: Path) -> str:
    """Markdown with the YAML head that the Hub reads; `history` is the run's metrics.jsonl."""
    masking, model = config.masking, config.model
    late = f" and {masking.late_layers} extra late layers" if masking.late_layers else ""
    kind = (
        _LATE.format(k=masking.insert_layer, layers=model.num_hidden_layers, late=late)
        if masking.insert_layer or masking.late_layers
        else _VANILLA
    )
    sources = ", ".join(
        f"{source.get('name', source.get('type'))}"
        for source in data.manifest.get("config", {}).get("sources", [])
    )
    losses = "\n".join(
        f"| {step:,} | {tokens / 1e6:,.2f} | {flops:.3g} | {loss:.4f} |"
        for step, tokens, flops, loss in _validation_losses(history)
    )
    return f"""---
library_name: transformers
tags: [masked-lm, late-masking, latemask]
---

# {Path(config.run.output_dir).name}

{"RoBERTa-PreLayerNorm" if model.norm == "pre" else "RoBERTa"}, {model.num_hidden_layers} layers x
{model.hidden_size}, {model.pieces:,} pieces, pretrained with latemask. {kind}

- Data: {sources or data.path} ({data.manifest["splits"]["train"]["tokens"]:,} tokens in rows of
  {data.seq_len}; tokenizer sha256 {data.tokenizer_sha256[:16]})
- Masking: {100 * masking.rate:g} % selected, {100 * masking.loss_fraction:g} % of it predicted, of
  which {100 * masking.masked_share:g} % [MASK], {100 * masking.random_share:g} % random
- Optimizer: AdamW, peak {config.optimizer.lr:g}, {config.data.global_batch_size} rows a step
- Seen: {progress.step:,} steps, {progress.tokens:,} tokens, {progress.flops:.4g} FLOPs,
  {progress.hours:.3f} hours

Validation loss at 15 % [MASK]s (nats, comparable between recipes):

| step | million tokens | FLOPs | loss |
| --- | --- | --- | --- |
{losses}
"""


def _validation_losses(history: Path) -> list[tuple[int, int, float, float]]:
    if not history.exists():
        return []
    records = [json.loads(line) for line in history.read_text().splitlines()]
    return [
        (r["step"], r["tokens"], r["flops"], r["valid/loss"]) for r in records if "valid/loss" in r
    ]
