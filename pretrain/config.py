"""Every setting of a pretraining run: typed, checked before anything is loaded, written to the run.

`configs/pretrain/*.yaml` hold these fields; `--group.field value` on the command line overrides
them (`command_line.py`). The text under a field is its `--help`. The DeepSpeed JSON is completed in
`engine.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from pretrain.errors import require
from pretrain.recipe import MaskingConfig, ModelConfig


@dataclass(kw_only=True)
class DataConfig:
    """Where the rows come from and how many make a step."""

    path: str
    """Folder of shards with its manifest.json, as `python -m pipeline` writes it, or its URL."""
    cache_dir: str = "~/.cache/latemask"
    """Where a URL's files are kept."""
    global_batch_size: int = 2048
    """Sequences per optimizer step, over all ranks and accumulation steps."""
    micro_batch_size: int = 32
    """Sequences per forward pass on one rank."""
    verify: bool = True
    """Hash every shard beside the training, once a start, and stop if one is not what it was."""

    def __post_init__(self) -> None:
        require(
            0 < self.micro_batch_size <= self.global_batch_size,
            f"data.micro_batch_size is {self.micro_batch_size}; it must be between 1 and "
            f"data.global_batch_size = {self.global_batch_size}",
        )


@dataclass(kw_only=True)
class OptimizerConfig:
    """The update rule and its schedule: linear warm-up, linear decay to 0 at the budget's end."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the matrices of the layers, AdamW for all else; not with ZeRO-3."""
    lr: float = 5e-4
    """Peak learning rate, of AdamW."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon, in spectral norm per update."""
    muon_momentum: float = 0.95
    """Muon's momentum (Nesterov's)."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Adam's decay rates (RoBERTa)."""
    eps: float = 1e-6
    """Adam's epsilon (RoBERTa)."""
    weight_decay: float = 0.01
    """Decoupled; not on biases, norms and embeddings of positions."""
    gradient_clipping: float = 0.0
    """Largest global gradient norm; 0 clips nothing (RoBERTa)."""
    warmup: float = 0.06
    """Share of the budget over which the learning rate rises."""
    lower_warmup: float = 0.0
    """Share of the budget over which the rate of all layers but the last two, late layers counted,
    rises as a square to the others': a shallow model sooner leaves the plateau at frequencies."""

    def __post_init__(self) -> None:
        for key in ("lr", "muon_lr"):
            require(
                getattr(self, key) > 0,
                f"optimizer.{key} is {getattr(self, key)}; it must be positive",
            )
        # DeepSpeed clips what Muon has made of the gradient, whose norm says nothing.
        require(
            self.name != "muon" or self.gradient_clipping == 0,
            f"optimizer.gradient_clipping is {self.gradient_clipping}, but Muon's updates have a "
            "norm of their own; set it to 0",
        )
        for key in ("warmup", "lower_warmup"):
            share = getattr(self, key)
            require(0 <= share < 1, f"optimizer.{key} is {share}; from 0 to below 1")


@dataclass(kw_only=True)
class BudgetConfig:
    """When the run ends: at whichever of these comes first."""

    steps: int | None = None
    """Optimizer steps."""
    tokens: float | None = None
    """Tokens read (rows x length; holes count)."""
    flops: float | None = None
    """Floating-point operations of forward and backward passes, as `python -m pretrain.flops`."""
    hours: float | None = None
    """Hours of training, over all restarts."""

    def __post_init__(self) -> None:
        given = {key: value for key, value in asdict(self).items() if value is not None}
        require(bool(given), "no budget: set one or more of budget.steps, tokens, flops, hours")
        for key, value in given.items():
            require(value > 0, f"budget.{key} is {value}; it must be positive")


@dataclass(kw_only=True)
class RunConfig:
    """Where results go and how often."""

    output_dir: str
    """The run's folder; a rerun of the same command goes on where the folder stands."""
    seed: int = 0
    """Of initial weights, row order, masks and dropout."""
    init_from: str | None = None
    """Start from the weights of this folder (an `hf/`, any RoBERTa's) or this name on the Hub."""
    log_every: int = 10
    """Steps between log lines."""
    eval_every: int = 500
    """Steps between evaluations on the validation split."""
    eval_sequences: int = 2048
    """Validation rows that an evaluation reads."""
    save_minutes: float = 15.0
    """Minutes between checkpoints; they are written in the background."""
    save_every: int | None = None
    """Steps between checkpoints, besides."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    keep_every: int | None = None
    """Checkpoints whose step is a multiple of this are kept, too: a multiple of save_every."""
    keep_best: bool = True
    """Save when the validation loss is the lowest so far, and keep that checkpoint, too."""
    stop_after_hours: float | None = None
    """Hours after which this start saves and ends with exit code 75, below a time limit."""
    spike_sigmas: float = 6.0
    """Standard deviations of the last losses by which a step's loss may exceed their mean; a step
    beyond is skipped, as is one whose loss or gradient is no number. 0: only the latter."""
    max_skipped_steps: int = 10
    """Steps skipped in a row after which the run goes back to the last checkpoint before them and
    on with the rows behind them."""
    max_rollbacks: int = 3
    """Times that it may go back; then it ends with exit code 65."""
    rank_seconds: float = 120.0
    """Silence after which a rank is taken for lost, and the others end with exit code 69."""
    hang_minutes: float = 30.0
    """Longest that a rank may be at one thing, or in one collective, before the run is ended."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 where the hardware is fast at it, else fp32."""
    compile: bool = False
    """Compile the step with torch.compile: a minute's start for a faster run."""
    gradient_checkpointing: bool = False
    """Compute each layer's activations again in the backward pass instead of keeping them."""
    peak_tflops: float | None = None
    """Of one device at its precision, for the log's MFU; null: known for some GPUs, else no MFU."""
    time_parts: bool = False
    """Log what share of the time each part of a step takes; waits for the device between them."""
    profile_steps: list[int] = field(default_factory=list)
    """[FIRST, COUNT]: write a torch.profiler trace of these steps of this start to traces/."""
    report_to: list[Literal["wandb"]] = field(default_factory=list)
    """Trackers besides metrics.jsonl and TensorBoard."""
    deepspeed_config: str = "configs/deepspeed/zero2.json"
    """DeepSpeed JSON; batch sizes, clipping and precision are filled in from this config."""

    def __post_init__(self) -> None:
        for key in (
            *("log_every", "eval_every", "eval_sequences", "keep_checkpoints"),
            *("save_every", "keep_every", "max_skipped_steps"),
        ):
            value = getattr(self, key)
            require(value is None or value > 0, f"run.{key} is {value}; 1 or more")
        for key in ("stop_after_hours", "rank_seconds", "hang_minutes", "peak_tflops"):
            value = getattr(self, key)
            require(value is None or value > 0, f"run.{key} is {value}; it must be positive")
        require(self.spike_sigmas >= 0, f"run.spike_sigmas is {self.spike_sigmas}; 0 or more")
        require(
            len(self.profile_steps) in (0, 2),
            f"run.profile_steps is {self.profile_steps}; it must be [FIRST, COUNT]",
        )


@dataclass(kw_only=True)
class PretrainConfig:
    """A pretraining run."""

    data: DataConfig
    run: RunConfig
    budget: BudgetConfig
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        layers = self.model.num_hidden_layers
        head_width = self.model.hidden_size // self.model.num_attention_heads
        require(
            self.masking.late_positions == "table" or head_width % 2 == 0,
            "masking.late_positions rotary turns pairs of a head's dimensions; model.hidden_size "
            f"over model.num_attention_heads is {head_width}, and must be even",
        )
        for k in [stage.insert_layer for stage in self.masking.stages()]:
            require(
                0 <= k <= layers,
                f"masking.insert_layer is {k}; it must lie between 0 and "
                f"model.num_hidden_layers = {layers}",
            )
            require(
                k < layers or self.masking.late_layers > 0,
                f"masking.insert_layer = {k} is the last layer and masking.late_layers is 0: the "
                "[MASK]s would reach the head without any context. Set masking.late_layers to 1 or "
                f"more, or masking.insert_layer below {layers}",
            )

    def save(self, path: Path) -> None:
        """Write the resolved config as YAML."""
        path.write_text(yaml.safe_dump(_plain(asdict(self)), sort_keys=False))


def _plain(value: Any) -> Any:
    """Tuples as lists, so that safe YAML can hold them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
