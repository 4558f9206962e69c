"""Every setting of a pretraining run: typed, checked before anything is loaded, written to the run.

`configs/pretrain/*.yaml` hold these fields; `--group.field value` on the command line overrides
them. The text under a field is its `--help`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from pretrain.budget import BudgetConfig
from pretrain.errors import require
from pretrain.recipe import MaskingConfig, ModelConfig, OptimizerConfig


def is_url(path: str) -> bool:
    """Whether this names something in an object store rather than a folder."""
    return "://" in path


@dataclass(kw_only=True)
class DataConfig:
    """Where the sequences come from and how many make a step."""

    path: str
    """Folder of shards with its manifest.json, as `python -m pipeline` writes it, or its URL
    (s3://, gs://, …)."""
    shuffle_shards: int | None = None
    """Shuffle within a window of so many shards that moves over all of them in shuffled order, so
    that a node needs only those of a URL that are in it; null: all sequences at once."""
    cache_dir: str = "~/.cache/latemask"
    """Where a URL's shards are kept while they are needed; best on a disk of the node."""
    cache_gb: float | None = None
    """Gigabytes that they may take there; null: room for the window and four shards, or for all."""
    retry_seconds: float = 300.0
    """Seconds for which a request to a URL that fails is repeated; then the run ends with 69."""
    global_batch_size: int = 2048
    """Sequences per optimizer step, over all ranks and accumulation steps."""
    micro_batch_size: int = 32
    """Sequences per forward pass on one rank."""
    initial_batch_size: int | None = None
    """Sequences of the first step, growing to global_batch_size in steps of this; null: no growth.
    A multiple of micro_batch_size x ranks, and a divisor of global_batch_size."""
    batch_warmup: float = 0.0
    """Share of the budget over which the batch grows from initial_batch_size."""
    verify: bool = True
    """Hash every shard beside the training, once a start, and stop if one is not what it was. Those
    of a URL always are, when they are fetched."""

    def __post_init__(self) -> None:
        require(
            0 < self.micro_batch_size <= self.global_batch_size,
            f"data.micro_batch_size is {self.micro_batch_size}; it must be between 1 and "
            f"data.global_batch_size = {self.global_batch_size}",
        )
        for key, least in (("shuffle_shards", 1), ("cache_gb", 0), ("retry_seconds", 0)):
            value = getattr(self, key)
            require(value is None or value >= least, f"data.{key} is {value}; {least} or more")
        if self.initial_batch_size is None:
            require(
                self.batch_warmup == 0,
                f"data.batch_warmup is {self.batch_warmup} without a batch size to begin with; set "
                "data.initial_batch_size, or leave data.batch_warmup out",
            )
        else:
            self._check_batch_warmup(self.initial_batch_size)

    def _check_batch_warmup(self, initial: int) -> None:
        require(
            initial > 0
            and initial % self.micro_batch_size == 0
            and self.global_batch_size % initial == 0,
            f"data.initial_batch_size is {initial}; it must be a multiple of "
            f"data.micro_batch_size = {self.micro_batch_size} and divide data.global_batch_size = "
            f"{self.global_batch_size}",
        )
        require(
            0 < self.batch_warmup <= 1,
            f"data.batch_warmup is {self.batch_warmup}; with data.initial_batch_size it must be "
            "above 0, at most 1",
        )

    @property
    def smallest_batch_size(self) -> int:
        """Sequences of the smallest step, of which all others are multiples."""
        return self.initial_batch_size or self.global_batch_size

    def batch_size_at(self, fraction: float) -> int:
        """Sequences of the step that begins when `fraction` of the budget is used.

        A multiple of `initial_batch_size` that grows linearly, whatever the number of ranks, and is
        `global_batch_size` from `batch_warmup` on.
        """
        if self.initial_batch_size is None or fraction >= self.batch_warmup:
            return self.global_batch_size
        increments = self.global_batch_size // self.initial_batch_size - 1
        return self.initial_batch_size * (1 + int(increments * fraction / self.batch_warmup))


@dataclass(kw_only=True)
class RunConfig:
    """Where results go and how often."""

    output_dir: str
    """The run's folder; the same command again resumes from its newest checkpoint."""
    seed: int = 0
    """Of initial weights, order of sequences, masks and dropout."""
    init_from: str | None = None
    """Continue the encoder in this folder (an `hf/`, a stock model's) or of this name on the Hub;
    what of `model` is at its default is taken from it."""
    branch_from: str | None = None
    """Begin with all that a checkpoint of another run holds: its weights, moments, progress and
    data position. A run folder (its newest) or a `checkpoints/step-N`; budget.* counts on."""
    log_every: int = 10
    """Steps between log lines."""
    eval_every: int = 500
    """Steps between evaluations on the validation split."""
    eval_sequences: int = 2048
    """Validation sequences that an evaluation reads: the first ones, on any number of ranks."""
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
    upload_to: str | None = None
    """URL (s3://BUCKET/runs/NAME) to which checkpoints are copied in the background. A start whose
    folder has none, or older ones, resumes from the newest there."""
    stop_after_hours: float | None = None
    """Hours after which this start saves and ends with exit code 75, below a time limit."""
    spike_sigmas: float = 6.0
    """Standard deviations of the last losses by which a step's loss may exceed their mean; a step
    beyond is skipped, as is one with a NaN or infinite loss or gradient. 0: only the latter."""
    max_skipped_steps: int = 10
    """Steps skipped in a row after which the run goes back to the last checkpoint before them and
    reads on behind their sequences."""
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
    deepspeed_config: str | None = None
    """DeepSpeed JSON; null: ZeRO-1. Batch sizes, clipping and precision come from this config."""

    def __post_init__(self) -> None:
        for key in (
            "log_every",
            "eval_every",
            "eval_sequences",
            "keep_checkpoints",
            "save_every",
            "keep_every",
            "max_skipped_steps",
        ):
            value = getattr(self, key)
            require(value is None or value > 0, f"run.{key} is {value}; 1 or more")
        for key in ("stop_after_hours", "rank_seconds", "hang_minutes", "peak_tflops"):
            value = getattr(self, key)
            require(value is None or value > 0, f"run.{key} is {value}; it must be positive")
        require(
            self.init_from is None or self.branch_from is None,
            f"run.init_from is {self.init_from} and run.branch_from {self.branch_from}: the "
            "weights can come from one of them only; leave the other out",
        )
        require(0 <= self.seed < 2**63, f"run.seed is {self.seed}; 0 to 2^63 - 1")
        require(self.hang_minutes < 10**6, f"run.hang_minutes is {self.hang_minutes}; below 1e6")
        for key in ("save_minutes", "max_rollbacks"):
            value = getattr(self, key)
            require(value >= 0, f"run.{key} is {value}; 0 or more")
        require(
            not is_url(self.output_dir),
            f"run.output_dir is {self.output_dir}; a run writes to a local folder: give one, and "
            "this URL as run.upload_to",
        )
        require(
            self.upload_to is None or is_url(self.upload_to),
            f"run.upload_to is {self.upload_to}; expected a URL, such as s3://BUCKET/runs/NAME",
        )
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
        require(
            bool(self.data.path.strip()), "data.path is empty; give a folder of shards or its URL"
        )
        require(bool(self.run.output_dir.strip()), "run.output_dir is empty; give a folder")
        # The source of the weights says how many layers there are, so what depends on it waits.
        if not self.run.init_from:
            self.check_layers()

    def check_layers(self) -> None:
        """Make shares of the layers layers, and check masking and model against each other.

        Raises:
            PretrainError: they do not go together.
        """
        layers = self.model.num_hidden_layers
        self.masking = self.masking.with_layers(layers)
        if self.model.architecture == "modernbert":
            require(
                self.masking.late_attention == "self",
                "masking.late_attention is cross, which modernbert's decoder layers don't have; "
                "set it to self",
            )
        for k in [stage.insertion_layer for stage in self.masking.stages()]:
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
