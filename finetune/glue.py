"""`python -m finetune.glue`: finetune or mask an encoder on GLUE-like tasks, and table the results.

    python -m finetune.glue --model_name_or_path M --task_name rte --method finetune mask \
        --data_dir DIR --output_dir OUT --seed 1 2 3
    python -m finetune.glue table OUT
    python -m finetune.glue compare OUT OTHER
    python -m finetune.glue submission OUT --output FILE.zip

The flags are `run_glue.py`'s; `--help` lists them. Without --do_train, --do_eval or --do_predict it
trains and evaluates.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from finetune.console import set_up
from finetune.errors import FinetuneError

SUBCOMMANDS = {"table": "table", "compare": "comparison", "submission": "submission"}


def main(command: Sequence[str]) -> None:
    """Run the command line `command` (without the program's name)."""
    if command and command[0] in SUBCOMMANDS:
        import_module(f"finetune.results.{SUBCOMMANDS[command[0]]}").main(command[1:])
        return
    # Two seconds of imports that the subcommands don't need.
    from finetune.jobs.plan import make_plan
    from finetune.jobs.sweep import run_sweep

    run_sweep(make_plan(command))


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
