"""What only reads its command line imports none of the libraries that take seconds."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainingArguments

from finetune.glue import main
from finetune.jobs.arguments import flag_names, make_parser

HEAVY = {"torch", "transformers", "datasets", "peft", "sklearn", "scipy", "pandas"}
# As `python -m` does, then what has been imported.
SCRIPT = """
import json, runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
code = 0
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code or 0
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def imported(*command: str) -> tuple[int, set[str], str]:
    """Exit code, packages in memory at the end, and what was printed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command], capture_output=True, text=True, check=True
    )
    *printed, last = done.stdout.splitlines()
    code, names = json.loads(last)
    return code, set(names), "\n".join(printed) + done.stderr


@pytest.mark.parametrize("module", ["glue", "predict", "serve", "maskfile", "families"])
def test_help_is_quick(module: str) -> None:
    code, names, printed = imported(f"finetune.{module}", "--help")
    assert (code, names & HEAVY) == (0, set())
    assert f"python -m finetune.{module}" in printed


def test_so_are_the_table_and_a_mistake(tmp_path: Path) -> None:
    job = tmp_path / "rte" / "finetune" / "seed-1"
    job.mkdir(parents=True)
    (job / "all_results.json").write_text('{"eval_accuracy": 0.5, "status": "ok"}')
    code, names, printed = imported("finetune.glue", "table", str(tmp_path))
    assert (code, names & HEAVY) == (0, set())
    assert "| rte | accuracy |  |  |  | 50.0" in printed and (tmp_path / "table.png").is_file()
    code, names, printed = imported("finetune.maskfile", "inform", "m")
    assert (code, names & HEAVY) == (2, set())
    assert printed.startswith("finetune.maskfile: ") and printed.count("\n") == 1


def test_help_names_every_flag_that_is_not_of_transformers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--task_name", "rte", "--help"])
    words = capsys.readouterr().out.split()
    theirs = {field.name for field in dataclasses.fields(TrainingArguments)}
    ours = {name for name in flag_names(make_parser()) if "-" not in name} - theirs
    own = ours - {"help", "h", "help_all", "no_disable_tqdm"}
    assert {f"--{name}" for name in own if not name.startswith("no_")} <= {*words}
    assert {"--seed", "--learning_rate", "--output_dir"} <= {*words}
