"""The job scripts: valid bash that starts the documented commands, refused outside a job."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [*sorted((ROOT / "slurm").glob("*.sh")), ROOT / "demo/run.sh"]
JOBS = [s for s in SCRIPTS if "#SBATCH" in s.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_bash_reads_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_configs_it_names_exist(script: Path) -> None:
    for name in re.findall(r"configs/[\w/.-]+\.(?:yaml|json)", script.read_text()):
        if "FILE" not in name:
            assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("script", JOBS, ids=lambda s: s.name)
def test_outside_a_job_it_says_so(script: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    result = subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "use sbatch" in result.stderr
