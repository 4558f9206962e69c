"""Checks before the queue: the settings, the paths and the batch of a stage, in seconds.

    python slurm/check.py --nodes 4 --ranks-per-node 8 pretrain --config configs/pretrain/large.yaml

Prints the number of nodes that can be used and the folder that the stage writes; what will be run
goes to stderr. Exit code 2: something must be fixed. Nothing is written, no rank is started.
slurm/submit.sh calls it before a job waits, the job itself before it starts anything.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, Python puts this folder first on the path, not the project's.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

logger = logging.getLogger(__name__)


class CheckError(Exception):
    """Something that the user can fix; the text says what, where and how."""


def check_preprocess(arguments: Sequence[str], options: argparse.Namespace) -> tuple[int, str]:
    """Options of the pipeline, its sources, its output folder."""
    from pipeline.__main__ import parse
    from pipeline.sources import plan

    config, _ = parse(list(arguments))
    chunks = plan(config.sources, config.chunk_bytes)
    files = [file for chunk in chunks for file in chunk.files]
    if not files:
        raise CheckError("the sources of the config hold no file")
    size = sum(file.bytes for file in files)
    logger.info("input: %s files, %.1f MB", f"{len(files):,}", size / 1e6)
    _require_writable(config.output)
    return options.nodes, str(config.output)


def check_pretrain(arguments: Sequence[str], options: argparse.Namespace) -> tuple[int, str]:
    """The config, the data under it, the batch on these ranks, the run that is resumed."""
    from pretrain.config_parser import parse_args
    from pretrain.data import ShardFolder
    from pretrain.deepspeed_config import complete_deepspeed_config
    from pretrain.fault_tolerance.run_folder import RunFolder
    from pretrain.main import resolve

    config = parse_args(arguments)
    key = "initial_batch_size" if config.data.initial_batch_size else "global_batch_size"
    batch_size = config.data.smallest_batch_size
    nodes = usable_nodes(batch_size, config.data.micro_batch_size, options.ranks_per_node)
    fitting = [count for count in nodes if count <= options.nodes]
    if not fitting or (options.submitting and fitting[-1] != options.nodes):
        raise CheckError(
            f"data.{key} = {batch_size} is not a multiple of "
            f"data.micro_batch_size x ranks a node x nodes = {config.data.micro_batch_size} x "
            f"{options.ranks_per_node} x {options.nodes}; "
            f"nodes that would do: {', '.join(map(str, nodes)) or 'none'}"
        )
    ranks = fitting[-1] * options.ranks_per_node
    complete_deepspeed_config(config, ranks, "fp32")
    _require_writable(config.run.output_dir)
    at_once = config.data.micro_batch_size * ranks
    logger.info(
        "step: %d sequences a micro-batch x %d ranks x %d accumulated = %d sequences",
        config.data.micro_batch_size,
        ranks,
        config.data.global_batch_size // at_once,
        config.data.global_batch_size,
    )
    if options.later and not (Path(config.data.path) / "manifest.json").exists():
        logger.info("data: %s, which the job before this one will write", config.data.path)
        return fitting[-1], config.run.output_dir
    data = ShardFolder.from_config(config.data)
    run = RunFolder(config.run.output_dir)
    begun = run.begun_config()
    config = resolve(config, data, begun.model if begun else None)
    for split in ("train", "valid"):
        count = f"{len(data.sequences(split)):,}"
        logger.info(
            "data: %s %s sequences of %d tokens in %s", count, split, data.seq_len, data.location
        )
    if newest := run.newest():
        run.check_config(config)
        logger.info("resumes from %s", newest.path)
    elif config.run.branch_from:
        from pretrain.branch import find_source

        source = find_source(config, data.sha256, verify=False)
        logger.info("branches from %s", source.path)
    return fitting[-1], config.run.output_dir


def usable_nodes(batch_size: int, micro_batch_size: int, ranks_per_node: int) -> list[int]:
    """The numbers of nodes, in order, on which all ranks take equally many sequences a step."""
    at_once = micro_batch_size * ranks_per_node
    most = batch_size // at_once
    return [nodes for nodes in range(1, most + 1) if batch_size % (at_once * nodes) == 0]


def check_glue(arguments: Sequence[str], options: argparse.Namespace) -> tuple[int, str]:
    """The flags of every job, its task's files, the model."""
    from finetune.jobs.arguments import (
        Layers,
        config_of,
        make_parser,
        parse,
        resolve,
        task_names,
    )
    from finetune.tasks import find_task
    from finetune.tasks.load import task_folder

    parser = make_parser()
    layers = Layers.read(config_of(arguments), parser)
    first = parse(parser, [*layers.base, *arguments])
    for name in task_names(first):
        task = find_task(name)
        for method in first.method:
            settings = resolve(parser, layers, arguments, method, name)
        data = settings.glue.data_dir
        if data is not None and not task_folder(data, task).is_dir() and not options.later:
            raise CheckError(f"--data_dir {data}: no folder {task.folder} in it, for {name}")
    model = settings.glue.model_name_or_path
    if not Path(model).exists() and model.count("/") > 1 and not options.later:
        raise CheckError(f"--model_name_or_path {model}: no such folder")
    _require_writable(str(settings.output_dir))
    return options.nodes, str(settings.output_dir)


def _require_writable(folder: str) -> None:
    path = Path(folder).absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir() or not os.access(path, os.W_OK):
        raise CheckError(f"{folder} can't be written: {path} is no folder that you may write to")


STAGES = {"preprocess": check_preprocess, "pretrain": check_pretrain, "glue": check_glue}


def main(command: Sequence[str]) -> int:
    """Check one stage; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    parser = argparse.ArgumentParser(prog="python slurm/check.py", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1, help="nodes of the job")
    parser.add_argument("--ranks-per-node", type=int, default=1, help="GPUs of a node, or 1")
    parser.add_argument(
        "--submitting", action="store_true", help="all nodes must be of use; else fewer may be"
    )
    parser.add_argument("--later", action="store_true", help="inputs may not exist yet")
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(command)
    from finetune.errors import FinetuneError
    from pipeline.errors import PipelineError
    from pretrain.errors import PretrainError

    try:
        nodes, folder = STAGES[options.stage](options.arguments, options)
    except (CheckError, PretrainError, PipelineError, FinetuneError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(nodes, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
