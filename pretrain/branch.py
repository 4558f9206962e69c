"""A run that begins with another one's checkpoint: its weights, moments, progress, data position.

The checkpoint is copied into the new run's folder, which then resumes from it as from any of its
own. So a kill, a rollback or another number of ranks needs nothing more, and the source may go.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

from pretrain.config import PretrainConfig
from pretrain.config_parser import load_config
from pretrain.errors import PretrainError
from pretrain.fault_tolerance.checkpoint import CHUNK_BYTES, Checkpoint, State
from pretrain.fault_tolerance.identity import differences, may_change
from pretrain.fault_tolerance.run_folder import RunFolder, open_checkpoint
from pretrain.optim import learning_rate

logger = logging.getLogger(__name__)

# The rest of these groups only says how training continues from there.
_MAY_DIFFER = (
    "masking.",
    "optimizer.",
    "data.global_batch_size",
    "data.initial_batch_size",
    "data.batch_warmup",
    "run.branch_from",
)
# These decide which parameters and moments there are.
_MUST_BE_EQUAL = (
    "masking.late_layers",
    "masking.late_attention",
    "masking.mask_embedding",
    "optimizer.name",
)


def find_source(config: PretrainConfig, data_sha256: str, *, verify: bool = True) -> Checkpoint:
    """The checkpoint that `run.branch_from` names, if a run of `config` can begin with it.

    Args:
        config: resolved, of the new run.
        data_sha256: of its data.
        verify: read every byte and compare the hashes, too.

    Raises:
        PretrainError: no usable checkpoint, other data, a config that does not fit it, or a budget
            that it has used already.
    """
    assert config.run.branch_from is not None
    source = open_checkpoint(Path(config.run.branch_from), verify=verify)
    found = source.state.data_sha256
    if found not in ("", data_sha256):
        raise PretrainError(
            f"run.branch_from: {source.path} was trained on other data, whose manifest.json has "
            f"sha256 {found[:16]}…; that of {config.data.path} has {data_sha256[:16]}…: give the "
            "same data.path"
        )
    changed = differences(load_config(source.run_folder / "config.yaml"), config)
    if refused := [text for key, text in changed.items() if not _may_differ(key)]:
        raise PretrainError(
            f"run.branch_from: {source.path} is of a run with another config:\n  "
            + "\n  ".join(refused)
            + "\nset these back, or start from its weights alone with run.init_from"
        )
    if source.progress.fraction(config.budget) >= 1:
        raise PretrainError(
            f"run.branch_from: {source.path} has used the whole budget, which counts from the "
            f"beginning of its run: step {source.progress.step:,}, {source.progress.tokens:,} "
            "tokens; raise budget.*, or branch from an earlier checkpoint"
        )
    return source


def branch(config: PretrainConfig, run: RunFolder, data_sha256: str) -> Checkpoint:
    """Copy the source's checkpoint into `run`, which has none, and return the copy.

    What the source counts of its faults and its best validation loss stay behind.

    Raises:
        PretrainError: see `find_source`, or it can't be copied.
    """
    source = find_source(config, data_sha256)
    source_config = load_config(source.run_folder / "config.yaml")
    progress = replace(source.progress, skipped=0, skipped_in_row=0, rollbacks=0)
    state = replace(source.state, progress=progress, valid_loss=None)
    if config.masking != source_config.masking:  # its losses have another level
        state = replace(state, losses=[], log_sums={})
    try:
        copy = _copy(source, state, run.checkpoints)
    except OSError as error:
        raise PretrainError(
            f"run.branch_from: {source.path} can't be copied to {run.checkpoints} ({error}); make "
            "room, or the folder writable"
        ) from None
    logger.info(
        "branched from %s: step %d, %s sequences read",
        source.path,
        progress.step,
        f"{progress.sequences:,}",
    )
    there = learning_rate(source_config.optimizer, progress.fraction(source_config.budget))
    here = learning_rate(config.optimizer, progress.fraction(config.budget))
    if not math.isclose(there, here, rel_tol=1e-6):
        logger.warning(
            "run.branch_from: the learning rate is %g from here on, the source's was %g at this "
            "step: it jumps",
            here,
            there,
        )
    return copy


def _may_differ(key: str) -> bool:
    return key not in _MUST_BE_EQUAL and (may_change(key) or key.startswith(_MAY_DIFFER))


def _copy(source: Checkpoint, state: State, checkpoints: Path) -> Checkpoint:
    """Complete or absent, as every checkpoint."""
    final = checkpoints / f"step-{state.progress.step:08d}"
    partial = checkpoints / f".{final.name}.partial"
    partial.mkdir(parents=True)
    for name in state.parts:
        with (source.path / name).open("rb") as theirs, (partial / name).open("wb") as ours:
            shutil.copyfileobj(theirs, ours, CHUNK_BYTES)
            ours.flush()
            os.fsync(ours.fileno())
    state.write(partial / "state.json")
    partial.replace(final)
    return Checkpoint.open(final)
