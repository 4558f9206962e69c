"""The scripts without Slurm: clean shell that names what exists, refused outside a job."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELL = [*sorted((ROOT / "slurm").glob("*.sh")), ROOT / "slurm/site.env.example"]
SCRIPTS = [*SHELL, ROOT / "demo/run.sh"]
MADE_UP = ("slurm/X.sh", "slurm/site.env")
JOBS = [s for s in SCRIPTS if "#SBATCH" in s.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_bash_reads_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_shellcheck_finds_nothing() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here; on Debian or Ubuntu: apt-get install shellcheck")
    result = subprocess.run(["shellcheck", *SHELL], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_configs_it_names_exist(script: Path) -> None:
    for name in re.findall(r"configs/[\w/.-]+\.(?:yaml|json)", script.read_text()):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("script", JOBS, ids=lambda s: s.name)
def test_outside_a_job_it_says_so(script: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    result = subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "sbatch or slurm/submit.sh" in result.stderr


@pytest.mark.parametrize("script", JOBS, ids=lambda s: s.name)
def test_all_directives_stand_where_sbatch_reads_them(script: Path) -> None:
    lines = script.read_text().splitlines()
    code = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[code:] if line.startswith("#SBATCH")]


@pytest.mark.parametrize("page", ["docs/cluster.md", "slurm/README.md"])
def test_files_named_in_the_docs_exist(page: str) -> None:
    names = re.findall(r"(?:configs|docs|slurm)/[\w/.-]*\w", (ROOT / page).read_text())
    assert names
    # X.sh stands for any job; the user makes site.env.
    assert not [n for n in names if not (ROOT / n).exists() and n not in MADE_UP]
