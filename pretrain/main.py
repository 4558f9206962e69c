"""Pretrain an encoder with late [MASK] insertion.

    deepspeed --num_gpus 8 pretrain/main.py --config configs/pretrain/base.yaml --optimizer.lr 1e-3
    python pretrain/main.py --config …          one process; torchrun and srun work too

Exit codes (docs/operations.md):
    0   the budget is used and `hf/` is written
    2   something in the config, the data or the launch must be fixed
    65  too many steps had to be skipped, again and again
    69  another rank died, hung or never came, or an object store was away for too long; the same
        command resumes from the last checkpoint
    74  stopped or finished, but the last checkpoint could not be written, or not uploaded
    75  stopped by a signal or `run.stop_after_hours`, and saved; the same command resumes
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if __name__ == "__main__":
    # Run as a script, Python puts this folder first on the path, and `import data` would be ours.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # slurm/node.py blocks these on the way here, so that DeepSpeed's launchers survive them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})
    # Until there is something to save, Ctrl-C ends each rank at once and without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

from pretrain.config import PretrainConfig
from pretrain.config_parser import parse_args
from pretrain.distribution import answer_version
from pretrain.errors import PretrainError, say
from pretrain.fault_tolerance.watchdog import Watchdog
from pretrain.launch import Launch

if TYPE_CHECKING:
    import torch

    from pretrain.data import ShardFolder
    from pretrain.fault_tolerance.checkpoint import Checkpoint
    from pretrain.fault_tolerance.run_folder import RunFolder
    from pretrain.fault_tolerance.upload import Uploads
    from pretrain.recipe import ModelConfig

STOPPED = 75  # EX_TEMPFAIL: what Slurm scripts requeue on

_SECONDS_TO_SPEAK = 3.0  # a launcher looks at its ranks once a second

logger = logging.getLogger(__name__)


def main(config: PretrainConfig) -> int:
    """Train, then export; returns the exit code."""
    launch = Launch.from_environment()
    hang_seconds = 60 * config.run.hang_minutes
    watchdog = Watchdog(launch.rank, launch.num_ranks, config.run.rank_seconds, hang_seconds)
    watchdog.enter("importing libraries")  # from now on something is watching
    from pretrain.data import ShardFolder
    from pretrain.fault_tolerance.run_folder import RunFolder
    from pretrain.fault_tolerance.upload import Uploads

    run = RunFolder(config.run.output_dir)
    with ExitStack() as held:
        try:
            watchdog.enter("opening the data")
            data = ShardFolder.from_config(config.data)
            uploads = Uploads(run, config.run) if config.run.upload_to else None
            begun = run.begun_config() or (uploads.begun_config() if uploads else None)
            config = resolve(config, data, begun.model if begun else None)
            finished = train_with_others(
                config, data, run, launch, watchdog, uploads=uploads, held=held
            )
        except PretrainError as error:
            if watchdog.fail(error.exit_code, str(error)):
                return error.exit_code  # rank 0 says it
            raise
        except Exception:
            watchdog.wait_for_news()  # a collective that failed since a rank is lost: it says which
            raise
        watchdog.close()
        if finished and launch.is_main_process:
            export_newest(run)
    return 0 if finished else STOPPED


def train_with_others(
    config: PretrainConfig,
    data: ShardFolder,
    run: RunFolder,
    launch: Launch,
    watchdog: Watchdog,
    *,
    uploads: Uploads | None,
    held: ExitStack,
) -> bool:
    """Join the other ranks and train; whether the budget is used.

    `held` is given the lock of the run's folder, on rank 0, which alone uses `uploads`.
    """
    import torch

    from pretrain.ranks import broadcast, join, on_main_process

    watchdog.enter("joining the other ranks")
    device = join(
        launch,
        run=str(run.path.absolute()),
        timeout=timedelta(minutes=config.run.hang_minutes),
        waiting_for=lambda ranks: watchdog.enter(f"waiting for {ranks}"),
    )
    watchdog.enter("meeting the other ranks' watchdogs")
    watchdog.connect(broadcast, launch.address)
    watchdog.enter("looking for a checkpoint")
    on_main_process(lambda: held.enter_context(run.lock()))
    checkpoint = on_main_process(
        lambda: claim(config, data, run, device, launch.num_ranks, uploads=uploads)
    )
    if checkpoint and checkpoint.progress.fraction(config.budget) >= 1:
        if launch.is_main_process:
            logger.info("%s is finished: its budget is used", run.path)
        if uploads:
            watchdog.enter("uploading the last checkpoint")
            on_main_process(uploads.finish)
        return True

    watchdog.enter("importing libraries")
    from pretrain.session import begin
    from pretrain.train import train

    session = begin(config, data, run, device, watchdog, checkpoint, uploads)
    finished = train(session)
    session.close()
    # A launcher ends all ranks when one exits with a code.
    torch.distributed.barrier()
    return finished


def claim(
    config: PretrainConfig,
    data: ShardFolder,
    run: RunFolder,
    device: torch.device,
    num_ranks: int,
    *,
    uploads: Uploads | None = None,
) -> Checkpoint | None:
    """Make the folder this run's, on rank 0: its config, this start, the checkpoint to resume."""
    from pretrain.provenance import describe_start

    run.remove_unfinished()  # first: a checkpoint that was being replaced comes back
    if uploads:
        uploads.restore(config)
    run.claim(config)
    run.record_start(describe_start(device, num_ranks))
    newest = run.newest(verify=True)
    if newest is None and config.run.branch_from:
        from pretrain.branch import branch

        newest = branch(config, run, data.sha256)
    if uploads and newest:
        uploads.begin()
    return newest


def export_newest(run: RunFolder) -> None:
    """Write `hf/`, unless it holds the newest step already."""
    from pretrain.export import export, exported_step

    newest = run.newest()
    hf = run.path / "hf"
    if newest and exported_step(hf) != newest.progress.step:
        export(newest.path, hf, replace_existing=True)
        logger.info("wrote %s; next: python -m finetune.glue --model_name_or_path %s", hf, hf)


def resolve(
    config: PretrainConfig, data: ShardFolder, begun: ModelConfig | None = None
) -> PretrainConfig:
    """Fill in what the source of the weights and the data know, and check the config against them.

    Args:
        config: as it was given.
        data: the shards.
        begun: what the run that is resumed has: the source need not be there any more.

    Raises:
        PretrainError: they do not go together.
    """
    from pretrain.architectures import architecture_of
    from pretrain.source import Source, settings_of

    settings: dict[str, Any] = {}
    if init_from := config.run.init_from:
        if begun is None:
            source = Source(init_from)
            settings = settings_of(config.model, source.config, init_from)
            source.check_tokenizer(data)
            taken = ", ".join(f"{key} {value}" for key, value in settings.items())
            logger.info("model: from %s: %s", init_from, taken)
        else:
            settings = settings_of(config.model, begun, init_from)
    settings |= _vocabulary_settings(config, data, settings.get("vocab_size"))
    config = replace(config, model=replace(config.model, **settings))
    config.check_layers()
    seq_len = data.seq_len
    longest = architecture_of(config.model).longest_sequence(config.model)
    if longest < seq_len:
        found = config.model.max_position_embeddings
        raise PretrainError(
            f"model.max_position_embeddings is {found}, sequences of {config.data.path} have "
            f"{seq_len} tokens: it must be at least {found + seq_len - longest}"
        )
    return config


def _vocabulary_settings(
    config: PretrainConfig, data: ShardFolder, found_rows: int | None
) -> dict[str, int]:
    """Rows of the word embedding, `found_rows` at the source, and the ids of special tokens."""
    from pretrain.recipe import TOKEN_ID_PARTS

    vocabulary = data.vocabulary
    rows = found_rows or config.model.vocab_size or vocabulary.size
    if rows < vocabulary.size:
        raise PretrainError(
            f"model.vocab_size is {rows}, the tokenizer of {config.data.path} has "
            f"{vocabulary.size} tokens; "
            + ("make the data with the source's" if found_rows else "leave model.vocab_size out")
        )
    settings = {"vocab_size": rows}
    for part in TOKEN_ID_PARTS:
        key = f"{part}_token_id"
        index = getattr(vocabulary, part)
        if getattr(config.model, key) not in (None, index):
            raise PretrainError(
                f"model.{key} is {getattr(config.model, key)}, the tokenizer of "
                f"{config.data.path} has {index}; leave model.{key} and model.vocab_size out"
            )
        settings[key] = index
    return settings


def run_from_command_line(argv: Sequence[str]) -> int:
    """What `deepspeed pretrain/main.py …` does, without the launcher's own argument."""
    answer_version(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for noisy in ("DeepSpeed", "torch", "numexpr"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    argv = [argument for argument in argv if not argument.startswith("--local_rank")]
    try:
        return main(parse_args(argv))
    except PretrainError as error:
        if not is_first_on_its_node():
            # What is wrong there, too, that one has said, and the launcher has ended this one.
            time.sleep(_SECONDS_TO_SPEAK)
        return say(error)


def is_first_on_its_node() -> bool:
    """Whether no rank stands before this one here, by variables that may be what is wrong."""
    local_rank = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID")
    return local_rank in (None, "0")


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
