"""The real loop and its supervisor around an engine, batches and a clock that are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from pretrain.budget import BudgetConfig, Progress
from pretrain.config import DataConfig, PretrainConfig, RunConfig
from pretrain.engine import Evaluation, StepOutput, Update
from pretrain.fault_tolerance.background import Saver
from pretrain.fault_tolerance.checkpoint import Fragment, WeightSource
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.fault_tolerance.supervisor import Supervisor
from pretrain.fault_tolerance.upload import Uploads
from pretrain.metrics import Recorder
from pretrain.recipe import MaskingConfig, ModelConfig
from pretrain.session import Session
from pretrain.train import train


class FakeClock:
    """Seconds; every step takes `step_seconds`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step_seconds = 1.0

    def __call__(self) -> float:
        return self.now


class FakeEngine:
    """One weight that counts the updates; losses, norms and other ranks as the test says."""

    rank = 0
    num_ranks = 1
    stage = 1
    precision = "fp32"
    device = torch.device("cpu")

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.weight = torch.zeros(4)
        self.adam_steps = 0
        self.steps = 0
        self.loss: Callable[[int], float] = lambda step: 3.0
        self.norm: Callable[[int], float] = lambda step: 1.0
        self.valid: Callable[[int], float] = lambda step: 9.0
        self.others: Callable[[int], list[float]] = lambda step: [0.0] * 8
        self.reductions = 0
        self.loaded: list[float] = []
        self.rates: list[float] = []
        self.saver: Saver
        self.waits_for_saver = True
        self.module = SimpleNamespace(masking=None)
        self.parts = SimpleNamespace(take=dict)

    def forward_backward(self, micro_batches: list[Any]) -> StepOutput:
        # A step takes as long as the saver's thread needs, so that every save takes two steps.
        deadline = time.monotonic() + 10
        while self.waits_for_saver and self.saver.phase != "idle" and not sum(self.saver.status()):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        self.position = micro_batches[0]
        self.steps += 1
        self.clock.now += self.clock.step_seconds
        loss = torch.tensor(10 * self.loss(self.steps), dtype=torch.float64)
        return StepOutput(loss, torch.tensor(1.0, dtype=torch.float64), 10)

    def update(self, learning_rate: float, *, skip: bool) -> Update:
        norm = self.norm(self.steps)
        applied = not skip and norm == norm
        self.weight += applied
        self.adam_steps += applied
        return Update(applied, norm)

    def evaluate(self, _batches: list[Any]) -> Evaluation:
        return Evaluation(self.valid(self.steps), 0.5)

    def sum_over_ranks(self, values: Sequence[Any]) -> list[float]:
        self.reductions += 1
        others = self.others(self.steps) if len(values) == 8 else [0.0] * len(values)
        return [float(value) + other for value, other in zip(values, others, strict=True)]

    def on_main_process(self, find: Callable[[], Any]) -> Any:
        return find()

    def fragments(self) -> list[Fragment]:
        return [Fragment("w", 0, {"weight": self.weight})]

    def shapes(self) -> dict[str, list[int]]:
        return {"w": [4]}

    def load(self, source: WeightSource) -> None:
        self.weight.copy_(source.read("weight", "w", 0, 4))
        self.adam_steps = source.adam_steps
        self.loaded.append(float(self.weight[0]))


class FakeBatches:
    """A batch is the position it begins at."""

    def __init__(self) -> None:
        self.read: list[tuple[int, float]] = []

    def steps(self, position: int, masking: MaskingConfig, size: int) -> Iterator[list[int]]:
        while True:
            self.read.append((position, masking.rate))
            yield [position]
            position += size


class Zeros:
    adam_steps = 0

    def kinds(self, _name: str) -> list[str]:
        return ["weight"]

    def read(self, _kind: str, _name: str, _start: int, count: int) -> torch.Tensor:
        return torch.zeros(count)


class Trial:
    """A run of the real loop over fakes, in a folder that outlives it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.budget = BudgetConfig(steps=settings.pop("steps", 20))
        self.masking = settings.pop("masking", MaskingConfig(insert_layer=1))
        self.data = settings.pop(
            "data", DataConfig(path="data", global_batch_size=16, micro_batch_size=16)
        )
        defaults = {"log_every": 1, "eval_every": 10**6, "save_minutes": 1e9}
        self.settings = RunConfig(output_dir=str(folder), **(defaults | settings))
        self.clock = FakeClock()
        self.engine = FakeEngine(self.clock)
        self.batches = FakeBatches()

    def go(self, resume: bool = False) -> bool:
        config = PretrainConfig(
            data=self.data,
            run=self.settings,
            budget=self.budget,
            masking=self.masking,
            model=ModelConfig(
                hidden_size=8, num_hidden_layers=2, num_attention_heads=2, vocab_size=64
            ),
        )
        run = RunFolder(self.folder)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        checkpoint = run.newest() if resume else None
        if checkpoint:
            self.engine.load(checkpoint)
        progress = checkpoint.progress if checkpoint else Progress()
        recorder = Recorder(
            self.folder, self.settings, writes=True, start=progress, fraction=0.0, sums={}
        )
        self.supervisor = Supervisor(
            config,
            run,
            self.engine,  # type: ignore[arg-type]
            recorder,
            SimpleNamespace(enter=lambda *_: None),  # type: ignore[arg-type]
            seq_len=32,
            data_sha256="",
            resumed_from=checkpoint.state if checkpoint else None,
            best_loss=run.best_loss(),
            initial_weights=Zeros,
            uploads=Uploads(run, self.settings) if self.settings.upload_to else None,
            clock=self.clock,
        )
        self.engine.saver = self.supervisor.saver
        session = Session(
            config=config,
            engine=self.engine,  # type: ignore[arg-type]
            batches=self.batches,  # type: ignore[arg-type]
            validation=[],
            supervisor=self.supervisor,
            recorder=recorder,
            trace=SimpleNamespace(before_step=lambda: None),  # type: ignore[arg-type]
            unigram_loss=5.0,
        )
        try:
            return train(session)
        finally:
            recorder.close()

    @property
    def saved(self) -> list[int]:
        """The steps of the checkpoints on disk."""
        return sorted(int(p.name[5:]) for p in (self.folder / "checkpoints").glob("step-*"))
