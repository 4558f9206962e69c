"""The one command: what it lists, how quickly, and how it speaks of a mistake."""

import json
import subprocess
import sys

import pytest

from reproduce.__main__ import EXPERIMENTS, main

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
