r"""`python -m finetune.glue`: finetune or mask an encoder on GLUE-like tasks, and table results.

    python -m finetune.glue --model_name_or_path M --task_name rte --method finetune mask \
        --data_dir DIR --output_dir OUT --seed 1 2 3
    python -m finetune.glue table OUT
    python -m finetune.glue compare OUT OTHER
    python -m finetune.glue submission OUT --output FILE.zip

The flags are `run_glue.py`'s. Without --do_train, --do_eval or --do_predict it trains and
evaluates.
"""

from collections.abc import Sequence
from importlib import import_module

from finetune.console import run
from finetune.jobs.help import print_help

SUBCOMMANDS = {"table": "table", "compare": "comparison", "submission": "submission"}


def main(command: Sequence[str]) -> None:
    """Run the command line `command` (without the program's name)."""
    if command and command[0] in SUBCOMMANDS:
        import_module(f"finetune.results.{SUBCOMMANDS[command[0]]}").main(command[1:])
        return
    if "-h" in command or "--help" in command:
        print_help(__doc__)
        return
    # Seconds of imports that nothing above needs.
    from finetune.jobs.plan import make_plan
    from finetune.jobs.sweep import run_sweep

    run_sweep(make_plan(command))


if __name__ == "__main__":
    run("glue", main, resumable=True)
