"""Every command in the README names things that exist and options that are accepted."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
COMMANDS = [
    shlex.split(line, comments=True)
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_name_what_exists(command: list[str]) -> None:
    program, *arguments = command
    if program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text()
    elif program in ("python", "deepspeed", "sbatch"):
        if arguments[0] == "-m":
            assert importlib.util.find_spec(arguments[1]) is not None
        else:
            script = next(word for word in arguments if word.endswith((".py", ".sh")))
            assert (ROOT / script).is_file()
    else:
        pytest.fail(f"unknown program {program}")
    for word in arguments:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file()


def test_pretraining_overrides_are_accepted() -> None:
    from pretrain.config_parser import parse_args

    for command in COMMANDS:
        if "pretrain/main.py" in command:
            parse_args(command[command.index("pretrain/main.py") + 1 :])


def test_files_named_in_the_text_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for name in re.findall(
        r"`((?:configs|docs|slurm|demo|pipeline|pretrain|finetune)/[^`]*)`", text
    ):
        assert (ROOT / name).exists(), name
