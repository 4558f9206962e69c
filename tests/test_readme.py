"""Every command in README and tutorials names things that exist and options that are accepted."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from tests.published_models import write_published

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIALS = {page.name: page.read_text("utf-8") for page in (ROOT / "docs/tutorials").glob("*.md")}
SHELL = {"for", "done", "cp"}


def commands_of(text: str) -> list[list[str]]:
    """The commands in the shell blocks of a text, as words."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = [words for text in (README, *TUTORIALS.values()) for words in commands_of(text)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_name_what_exists(command: list[str]) -> None:
    program, *arguments = command
    if program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text()
    elif program.startswith("slurm/"):
        assert (ROOT / program).is_file()
        for word in arguments:
            assert not word.endswith(".sh") or (ROOT / word).is_file()
    elif program in ("python", "deepspeed", "sbatch"):
        if arguments[0] == "-m":
            assert importlib.util.find_spec(arguments[1]) is not None
        else:
            script = next(word for word in arguments if word.endswith((".py", ".sh")))
            assert (ROOT / script).is_file()
    elif program == "hf":
        done = subprocess.run(
            ["hf", arguments[0], "--help"], env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        for word in arguments:
            assert not word.startswith("--") or word in done.stdout
    else:
        assert program in SHELL
    for word in arguments:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file()


def test_pretraining_overrides_are_accepted() -> None:
    from pretrain.config_parser import parse_args

    for command in COMMANDS:
        if "pretrain/main.py" in command:
            parse_args(command[command.index("pretrain/main.py") + 1 :])


def test_the_tutorial_has_the_commands_of_the_readme() -> None:
    tutorial = commands_of(TUTORIALS["own_text.md"])
    for command in commands_of(section("Your own text")):
        assert command in tutorial


def section(heading: str) -> str:
    """A section of the README."""
    return README.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def environment() -> dict[str, str]:
    """In which `python` is this one."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.long
def test_six_classifiers(tmp_path: Path) -> None:
    """The tutorial's commands as they stand, but for the server, which would not end."""
    (tmp_path / "finetune").symlink_to(ROOT / "finetune")
    write_published(tmp_path / "runs/mine/hf", "modernbert")
    for task in ("topic", "urgency", "sentiment"):
        (tmp_path / task).mkdir()
        for file in ("train.csv", "dev.csv"):
            (tmp_path / task / file).write_text("text,label\n" + "good film,yes\nbad film,no\n" * 8)
    (tmp_path / "new.txt").write_text("a good film\na bad film\n")
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIALS["six_classifiers.md"], flags=re.S)
    shown = []
    for block in blocks:
        if "finetune.serve" not in block:
            done = subprocess.run(
                ["bash", "-euc", block], cwd=tmp_path, env=environment(), check=False,
                capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            shown.append(done.stdout)
    assert len(shown) == 3
    answers = [json.loads(line) for line in shown[1].splitlines()]
    assert [answer["task"] for answer in answers] == ["sentiment", "topic", "urgency"] * 2
    again = [json.loads(line) for line in shown[2].splitlines() if line.startswith("{")]
    assert again == [answer for answer in answers if answer["task"] == "topic"]


@pytest.mark.long
def test_from_own_text_to_a_mask(tmp_path: Path) -> None:
    """The section's commands as they stand, on Python's own documentation."""
    for name in ("configs", "pretrain", "pipeline", "finetune"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "texts").mkdir()
    for topic, text in topics.items():
        (tmp_path / "texts" / f"{topic}.txt").write_text(text, encoding="utf-8")
    for file, every in (("train.csv", (0, 1, 2, 3)), ("dev.csv", (4,))):
        lines = ["text,label"]
        for topic in ("typesseq", "compound", "specialnames", "formatstrings"):
            for number, line in enumerate(topics[topic].splitlines()):
                if number % 5 in every and len(line) > 40:
                    lines.append(f'"{line.strip().replace(chr(34), "")}",{topic}')
        (tmp_path / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "new.txt").write_text("The for statement is used to iterate.\n")
    commands = commands_of(section("Your own text"))
    assert len(commands) == 5
    for command in commands:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    (answer,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert answer["task"] == "reviews"
    assert answer["label"] in ("typesseq", "compound", "specialnames", "formatstrings")


def test_files_named_in_the_text_exist() -> None:
    text = README
    for name in re.findall(
        r"`((?:configs|docs|slurm|demo|pipeline|pretrain|finetune|reproduce)/[^`]*)`", text
    ):
        assert (ROOT / name).exists(), name


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    "page",
    [
        *("README.md", "reproduce/README.md"),
        *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")),
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in map(slug, headings), target
