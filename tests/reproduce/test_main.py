"""The one command: what it lists, how quickly, and how it speaks of a mistake."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reproduce.__main__ import EXPERIMENTS, main

ROOT = Path(__file__).parents[2]

HEAVY = {"torch", "transformers", "datasets", "peft", "sklearn", "scipy", "pandas", "matplotlib"}
# As `python -m reproduce` does, then what has been imported.
SCRIPT = """
import json, sys
from reproduce.__main__ import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize("command", [["--help"], ["weight_masks", "--help"], ["late_maskin"]])
def test_help_and_a_mistake_import_nothing_that_takes_seconds(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command], capture_output=True, text=True, check=True
    )
    code, names = json.loads(done.stdout.splitlines()[-1])
    assert (code, HEAVY & {*names}) == (2 if command == ["late_maskin"] else 0, set())


def test_help_lists_every_experiment_and_each_has_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    for name in EXPERIMENTS:
        assert f"\n  {name} " in listed
        if name == "weight_masks":
            assert main([name, "--help"]) == 0
        else:
            with pytest.raises(SystemExit, match="0"):
                main([name, "--help"])
        assert f"usage: python -m reproduce {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["late_maskin"], "reproduce late_maskin: no such experiment. Did you mean late_masking?"),
        (["late_masking", "al"], "reproduce late_masking: Argument stage: invalid choice: 'al'"),
        (["late_masking", "all"], "reproduce late_masking: --data_dir is missing"),
        (["late_masking", "report", "--config", "no.yaml"], "there is no no.yaml"),
        (["weight_masks", "sparsty"], "reproduce weight_masks: sparsty: no such figure."),
        (["scores"], "reproduce scores: The following arguments are required: --model_name"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_what_it_started_is_told_to_end(tmp_path: Path) -> None:
    run = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('saved').touch(), sys.exit(75)))\n"
        "pathlib.Path('begun').touch()\n"
        "time.sleep(60)\n"
    ).replace("Path('", f"Path('{tmp_path}/")
    experiment = (
        "import runpy, sys\n"
        "from pathlib import Path\n"
        "from reproduce.late_masking import command\n"
        "from reproduce.late_masking.jobs import Job, run_jobs\n"
        f"words, log = [sys.executable, '-c', {run!r}], Path('{tmp_path}/log')\n"
        "job = Job('run', words, [Path('never')], log)\n"
        "command.main = lambda words: run_jobs([job], 1)\n"
        "sys.argv = ['reproduce', 'late_masking']\n"
        "runpy.run_module('reproduce', run_name='__main__')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", experiment], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    for name in ("begun", "saved"):
        deadline = time.monotonic() + 60
        while not (tmp_path / name).exists():
            assert time.monotonic() < deadline, name
            time.sleep(0.05)
        if name == "begun":
            process.terminate()
    assert "the same command resumes from here" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
