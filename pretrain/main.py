"""Pretrain RoBERTa with late [MASK] insertion.

    deepspeed --num_gpus 8 pretrain/main.py --config configs/pretrain/base.yaml --optimizer.lr 1e-3
    python pretrain/main.py --config …          one process; torchrun and srun work too

Exit code 0: the budget is used and `hf/` is written. 2: something in the config or the data must
be mended. 75: stopped by a signal after saving; the same command goes on from there.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, Python puts this folder first on the path, and `import data` would be ours.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # slurm/node.py blocks these on the way here, for DeepSpeed's launchers not to die of them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})

from pretrain.command_line import exit_with, parse_args
from pretrain.config import PretrainConfig, PretrainError

STOPPED = 75  # EX_TEMPFAIL: what Slurm scripts requeue on

logger = logging.getLogger(__name__)


def main(config: PretrainConfig) -> int:
    """Train, then export; returns the exit code."""
    from pretrain.checkpoint import RunFolder
    from pretrain.data import ShardFolder
    from pretrain.export import export

    run = RunFolder(config.run.output_dir)
    data = ShardFolder(config.data.path, config.data.cache_dir)
    config = resolve(config, data)
    newest = run.newest()
    if newest is None or newest.progress.fraction(config.budget) < 1:
        import torch

        from pretrain.ranks import start_ranks
        from pretrain.train import train

        rank, _, device = start_ranks()
        with run.lock() if rank == 0 else nullcontext():
            if rank == 0:
                run.adopt(config)
            if not train(config, data, run, device):
                # A launcher ends all ranks when one exits with a code; rank 0 may still be saving.
                torch.distributed.barrier()
                return STOPPED
    else:
        rank = int(os.environ.get("RANK", "0"))
        if rank == 0:
            run.adopt(config)
            logger.info("%s is finished: its budget is used", run.path)
    if rank != 0:
        return 0
    hf = run.path / "hf"
    if not (hf / "model.safetensors").exists():
        export(run.path, hf)
        logger.info("wrote %s", hf)
    return 0


def resolve(config: PretrainConfig, data: object) -> PretrainConfig:
    """Fill in what the data knows and check the config against it."""
    vocab_size, seq_len = data.vocab_size, data.seq_len  # type: ignore[attr-defined]
    wanted = config.model.vocab_size
    if wanted not in (None, vocab_size):
        raise PretrainError(
            f"model.vocab_size is {wanted}, the tokenizer of {config.data.path} has {vocab_size} "
            "pieces; leave model.vocab_size out"
        )
    if config.model.max_position_embeddings < seq_len + 2:
        raise PretrainError(
            f"model.max_position_embeddings is {config.model.max_position_embeddings}, rows of "
            f"{config.data.path} have {seq_len} tokens: it must be at least {seq_len + 2}"
        )
    return replace(config, model=replace(config.model, vocab_size=vocab_size))


def run_from_command_line(argv: Sequence[str]) -> int:
    """What `deepspeed pretrain/main.py …` does, the launcher's own argument left out."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for noisy in ("DeepSpeed", "torch", "numexpr"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    argv = [argument for argument in argv if not argument.startswith("--local_rank")]
    try:
        return main(parse_args(argv))
    except PretrainError as error:
        if os.environ.get("RANK", "0") != "0":
            raise SystemExit(2) from None  # rank 0 says it
        exit_with(error)


if __name__ == "__main__":
    sys.exit(run_from_command_line(sys.argv[1:]))
