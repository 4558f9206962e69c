"""Pretrain RoBERTa with late [MASK] insertion.

    deepspeed --num_gpus 8 pretrain/main.py --config configs/pretrain/base.yaml --optimizer.lr 1e-3
    python pretrain/main.py --config …          one process; torchrun and srun work too

Exit codes (docs/operations.md):
    0   the budget is used and `hf/` is written
    2   something in the config or the data must be mended
    65  too many steps had to be skipped, again and again
    69  another rank died, stopped or hung; the same command goes on from the last checkpoint
    74  stopped or finished, but the last checkpoint could not be written
    75  stopped by a signal or `run.stop_after_hours`, and saved; the same command goes on
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if __name__ == "__main__":
    # Run as a script, Python puts this folder first on the path, and `import data` would be ours.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # slurm/node.py blocks these on the way here, for DeepSpeed's launchers not to die of them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})

from pretrain.command_line import parse_args, say
from pretrain.config import PretrainConfig
from pretrain.errors import PretrainError

if TYPE_CHECKING:
    from pretrain.data import ShardFolder
    from pretrain.fault_tolerance.run_folder import RunFolder

STOPPED = 75  # EX_TEMPFAIL: what Slurm scripts requeue on

logger = logging.getLogger(__name__)


def main(config: PretrainConfig) -> int:
    """Train, then export; returns the exit code."""
    from pretrain.data import ShardFolder
    from pretrain.export import export
    from pretrain.fault_tolerance.run_folder import RunFolder

    run = RunFolder(config.run.output_dir)
    data = ShardFolder(config.data.path, config.data.cache_dir)
    config = resolve(config, data)
    newest = run.newest()
    if newest is None or newest.progress.fraction(config.budget) < 1:
        if not train_with_others(config, data, run):
            return STOPPED
    elif leads():
        run.adopt(config)
        logger.info("%s is finished: its budget is used", run.path)
    if not leads():
        return 0
    hf = run.path / "hf"
    if not (hf / "model.safetensors").exists():
        export(run.path, hf)
        logger.info("wrote %s", hf)
    return 0


def train_with_others(config: PretrainConfig, data: ShardFolder, run: RunFolder) -> bool:
    """Join the other ranks and train; whether the budget is used. An error ends all ranks."""
    import torch

    from pretrain.fault_tolerance.watchdog import Watchdog
    from pretrain.ranks import start_ranks
    from pretrain.train import train

    hang = timedelta(minutes=config.run.hang_minutes)
    rank, num_ranks, device = start_ranks(timeout=hang)
    watchdog = Watchdog(rank, num_ranks, config.run.rank_seconds, hang.total_seconds())
    try:
        with run.lock() if rank == 0 else nullcontext():
            if rank == 0:
                run.adopt(config)
            finished = train(config, data, run, device, watchdog)
    except PretrainError as error:
        watchdog.fail(error.exit_code, str(error))
        raise
    except Exception:
        watchdog.wait_for_news()  # a collective that failed since a rank is lost: it says which
        raise
    watchdog.close()
    # A launcher ends all ranks when one exits with a code.
    torch.distributed.barrier()
    return finished


def leads() -> bool:
    """Whether this process is rank 0, asked before the ranks have met."""
    return os.environ.get("RANK", "0") == "0"


def resolve(config: PretrainConfig, data: ShardFolder) -> PretrainConfig:
    """Fill in what the data knows and check the config against it."""
    vocab_size, seq_len = data.vocab_size, data.seq_len
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
        return say(error) if leads() else error.exit_code  # one rank says it


def end_process(exit_code: int) -> NoReturn:
    """End without the interpreter's own end, in which a library's thread that still runs may abort
    the process and so hide the exit code: gloo's do where an error left the process group as it
    was (pytorch issue 190489).
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    end_process(run_from_command_line(sys.argv[1:]))
