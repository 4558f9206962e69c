"""The README.md of an exported model: data, recipe, compute, losses, and what it can't do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain.architectures import architecture_of
from pretrain.config import PretrainConfig
from pretrain.data import ShardFolder
from pretrain.fault_tolerance.checkpoint import Checkpoint
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.recipe import MaskingConfig

_LATE = """The [MASK]s entered at layer {k} of {layers}{late}, so the early layers never saw one:
use this encoder for finetuning as any other of its kind; to fill masks, use
`python -m pretrain.fill_mask {folder}`, which inserts them where they belong. No stock MLM head
is in the folder, since the stock forward pass could not use it."""
_DECODER = """{late} decoder layers stood between the encoder and the head and are not exported: use
this encoder for finetuning as any other of its kind; to fill masks, use
`python -m pretrain.fill_mask {folder}`. No stock MLM head is in the folder."""
_VANILLA = "Ordinary masked language modelling: the stock fill-mask pipeline works."


def model_card(
    config: PretrainConfig,
    data: ShardFolder,
    checkpoint: Checkpoint,
    folder: str,
    averaged_steps: Sequence[int] = (),
) -> str:
    """Markdown with the YAML head that the Hub reads.

    Args:
        config: the run's.
        data: the shards.
        checkpoint: the one that is exported.
        folder: what the exported folder is called.
        averaged_steps: of the checkpoints whose mean the weights are, `checkpoint` the last.
    """
    model = config.model
    progress = checkpoint.progress
    masking = checkpoint.last_masking(config.masking, config.budget)
    late = f" and {masking.late_layers} extra decoder layers" if masking.late_layers else ""
    if masking.insertion_layer:
        kind = _LATE.format(
            k=masking.insertion_layer, layers=model.num_hidden_layers, late=late, folder=folder
        )
    elif masking.late_layers:
        kind = _DECODER.format(late=masking.late_layers, folder=folder)
    else:
        kind = _VANILLA
    origin = f", from the weights of {config.run.init_from} on" if config.run.init_from else ""
    sources = ", ".join(
        f"{source.get('name', source.get('type'))}"
        for source in data.manifest.get("config", {}).get("sources", [])
    )
    of_whom = ", of the run's weights, not of their mean" if averaged_steps else ""
    history = checkpoint.run_folder / "metrics.jsonl"
    losses = "\n".join(
        f"| {step:,} | {tokens / 1e6:,.2f} | {flops:.3g} | {loss:.4f} |"
        for step, tokens, flops, loss in _validation_losses(history)
    )
    return f"""---
library_name: transformers
tags: [masked-lm, late-masking, latemask]
---

# {Path(config.run.output_dir).name}

{architecture_of(model).title}, {model.num_hidden_layers} layers x
{model.hidden_size}, vocabulary of {model.known_vocab_size:,}, pretrained with latemask{origin}.
{kind}

- Data: {sources or data.location} ({data.manifest["splits"]["train"]["tokens"]:,} tokens in
  sequences of {data.seq_len}; tokenizer sha256 {data.tokenizer_sha256[:16]})
- Masking: {_stages(config, masking)}
- Optimizer: {_optimizer(config)}, {_batch(config)} sequences a step{_origin(config)}
- Seen: {progress.step:,} steps, {progress.tokens:,} tokens, {progress.flops:.4g} FLOPs,
  {progress.hours:.3f} hours{_average(averaged_steps)}
{_code(RunFolder(checkpoint.run_folder).starts())}

Validation loss at 15 % [MASK]s (nats, comparable between recipes){of_whom}:

| step | million tokens | FLOPs | loss |
| --- | --- | --- | --- |
{losses}
"""


def _stages(config: PretrainConfig, last: MaskingConfig) -> str:
    """How tokens were masked, stage by stage, up to the last one that was trained."""
    starts = [0.0, *(stage.start for stage in config.masking.schedule)]
    lines = []
    for start, masking in zip(starts, config.masking.stages(), strict=True):
        begin = f"from {100 * start:g} % of the run on: " if start else ""
        lines.append(
            f"{begin}{100 * masking.rate:g} % selected, {100 * masking.loss_fraction:g} % of it "
            f"predicted, of which {100 * masking.masked_share:g} % [MASK] (from layer "
            f"{masking.insertion_layer} on), {100 * masking.random_share:g} % random"
        )
        if masking == last:
            break
    return ";\n  ".join(lines)


def _optimizer(config: PretrainConfig) -> str:
    optimizer = config.optimizer
    schedule = f"{optimizer.schedule} schedule"
    if optimizer.name == "muon":
        return f"Muon, peak {optimizer.muon_lr:g}, and AdamW, peak {optimizer.lr:g}, {schedule}"
    return f"AdamW, peak {optimizer.lr:g}, {schedule}"


def _batch(config: PretrainConfig) -> str:
    first, last = config.data.smallest_batch_size, config.data.global_batch_size
    return f"{last:,}" if first == last else f"{first:,} to {last:,}"


def _origin(config: PretrainConfig) -> str:
    source = config.run.branch_from
    return f"\n- Branched from: {source}" if source else ""


def _average(steps: Sequence[int]) -> str:
    listed = ", ".join(f"{step:,}" for step in steps)
    return f"\n- Weights: the mean of the checkpoints of steps {listed}" if steps else ""


def _code(starts: list[dict[str, Any]]) -> str:
    """With what code and where the run was made: the last start, and how many there were."""
    if not starts:
        return ""
    last = starts[-1]
    commit = f"commit {last['commit']}" if last["commit"] else "an installed package"
    changed = " with uncommitted changes" if last["clean"] is False else ""
    others = {start.get("commit") for start in starts} - {last["commit"]}
    earlier = f"; begun with {', '.join(sorted(map(str, others)))}" if others else ""
    versions = ", ".join(f"{name} {found}" for name, found in last["versions"].items())
    return f"""- Code: {commit}{changed}{earlier}; {versions}
- Machine: {last["ranks"]} x {last["device"]}; {len(starts)} start{"s" if len(starts) > 1 else ""}
- Command: `{last["command"]}`"""


def _validation_losses(history: Path) -> list[tuple[int, int, float, float]]:
    if not history.exists():
        return []
    records = [json.loads(line) for line in history.read_text().splitlines()]
    return [
        (r["step"], r["tokens"], r["flops"], r["valid/loss"]) for r in records if "valid/loss" in r
    ]
