"""`python -m finetune.glue`: finetune or mask an encoder on GLUE-like tasks, and table the results.

    python -m finetune.glue --model_name_or_path M --task_name rte --method finetune mask \
        --data_dir DIR --output_dir OUT --seed 1 2 3
    python -m finetune.glue table OUT

The flags are `run_glue.py`'s; `--help` lists them. Without --do_train, --do_eval or --do_predict it
trains and evaluates.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from finetune.console import set_up
from finetune.errors import FinetuneError


def main(command: Sequence[str]) -> None:
    """Run the command line `command` (without the program's name)."""
    if command and command[0] == "table":
        from finetune.table import main as table

        table(command[1:])
        return
    run(command)


def run(command: Sequence[str]) -> None:
    """Plan every job of the command, check all of its input, then run what isn't finished."""
    # Two seconds of imports that `table` doesn't need.
    from finetune.arguments import Layers, make_parser, parse, resolve
    from finetune.encode import Backbone
    from finetune.sweep import load_tasks, model_identity, run_sweep
    from finetune.tasks import GLUE, find_task
    from finetune.train import METHODS, Job

    parser = make_parser()
    # --config may stand anywhere and brings flags that are else required.
    config = next(
        (command[i + 1] for i, word in enumerate(command[:-1]) if word == "--config"), None
    )
    layers = Layers.read(Path(config) if config else None, parser)
    first = parse(parser, [*layers.base, *command])
    names = [name for word in first.task_name for name in (GLUE if word == "all" else [word])]
    for name in names:
        find_task(name)
    for method in first.method:
        if method not in METHODS:
            raise FinetuneError(f"--method {method}: expected some of {', '.join(METHODS)}.")
    cells = [
        (name, method, resolve(parser, layers, command, method, name))
        for name in names
        for method in first.method
    ]
    glue = cells[0][2].glue
    identity = model_identity(glue.model_name_or_path)
    with_test = any(settings.training["do_predict"] for _, _, settings in cells)
    tasks = load_tasks(names, glue.data_dir, with_test)
    backbone = Backbone.load(glue.model_name_or_path)
    jobs = []
    for name, method, settings in cells:
        for seed in settings.seeds:
            folder = settings.output_dir / name / method / f"seed-{seed}"
            record = {
                "task": name,
                "method": method,
                "seed": seed,
                "model": identity,
                "data": tasks[name].sha256,
                **settings.deciding(method),
            }
            job = Job(name, method, seed, folder, settings.training, settings.mask, record)
            jobs.append((job, settings.glue.max_seq_length))
    run_sweep(jobs, tasks, backbone)


if __name__ == "__main__":
    set_up()
    try:
        main(sys.argv[1:])
    except FinetuneError as error:
        print(f"finetune.glue: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("finetune.glue: interrupted; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)
