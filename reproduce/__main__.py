"""`python -m reproduce EXPERIMENT …`: the command line. README.md says which result is which."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from finetune.console import set_up
from finetune.errors import FinetuneError
from pretrain.errors import PretrainError
from reproduce.errors import ReproduceError

# Name -> the module whose `main` takes the rest of the command line, and what it makes. A module is
# imported when it is called: some take seconds.
EXPERIMENTS = {
    "late_masking": (
        "reproduce.late_masking.command",
        "Mask More and Mask Later: pretrain variants for equal FLOPs, finetune them, report",
    ),
    "speedrun": (
        "reproduce.speedrun",
        "the least time to a fixed loss on a fixed corpus: Hugging Face's Trainer, vanilla, late",
    ),
    "weight_masks": (
        "reproduce.weight_masks.command",
        "Masking as an Efficient Alternative to Finetuning: each of its figures",
    ),
    "scores": (
        "reproduce.scores.grid",
        "masks against finetuning: a grid of learning rates, then several seeds",
    ),
    "adapters": (
        "reproduce.scores.adapters",
        "masks beside LoRA, SHiRA, BitFit, IA3: scores, bytes, cost of training",
    ),
    "plain_trainer": (
        "reproduce.scores.plain_trainer",
        "the plain Trainer with finetune.glue's settings: the scores to compare with",
    ),
}
USAGE = "usage: python -m reproduce EXPERIMENT [flags]; EXPERIMENT --help lists its flags\n"


def main(command: Sequence[str]) -> int:
    """Run the experiment that `command` names; the exit code."""
    if not command or command[0] in ("-h", "--help"):
        lines = [f"  {name:14} {about}" for name, (_, about) in EXPERIMENTS.items()]
        print(USAGE, *lines, sep="\n")
        return 0
    name, *words = command
    set_up()
    try:
        if name not in EXPERIMENTS:
            near = get_close_matches(name, EXPERIMENTS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ReproduceError(f"no such experiment.{hint} There are: {', '.join(EXPERIMENTS)}.")
        import_module(EXPERIMENTS[name][0]).main(words)
    except (ReproduceError, FinetuneError, PretrainError) as error:
        print(f"reproduce {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        remedy = "the same command resumes from here"
        print(f"reproduce {name}: interrupted; {remedy}.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    # What a queue or `kill` sends ends as Ctrl-C does: the runs are told, and save.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
