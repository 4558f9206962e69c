"""How a command ends: exit codes, one line on standard error, no traceback."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from finetune.console import run
from finetune.errors import FinetuneError

def main(command):
    print("†", *command)
    sys.stdout.flush()
    {}

run("walk", main, resumable={})
"""


def ended(body: str, resumable: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body, resumable), "--flag"],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )


@pytest.mark.parametrize(
    ("body", "resumable", "code", "said"),
    [
        ("pass", False, 0, ""),
        ("raise FinetuneError('t.tsv: odd.')", False, 2, "finetune.walk: t.tsv: odd.\n"),
        ("raise KeyboardInterrupt", False, 130, "finetune.walk: interrupted.\n"),
        (
            "raise KeyboardInterrupt", True, 130,
            "finetune.walk: interrupted; the same command resumes from here.\n",
        ),
        ("raise BrokenPipeError", False, 1, ""),
    ],
)  # fmt: skip
def test_how_it_ends(body: str, resumable: bool, code: int, said: str) -> None:
    done = ended(body, resumable)
    assert (done.returncode, done.stderr, done.stdout) == (code, said, "† --flag\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    """As `head -n 1` leaves."""
    command = [sys.executable, "-c", SCRIPT.format("[print('x' * 999) for _ in range(999)]", False)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
