"""The settings' pages: as made now, and with every option that the commands list."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/reference"


def test_pages_are_those_that_the_settings_give(tmp_path: Path) -> None:
    script = tmp_path / "make.py"
    script.write_text((PAGES / "make.py").read_text(encoding="utf-8"), encoding="utf-8")
    subprocess.run([sys.executable, script], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True)
    for page in sorted(PAGES.glob("*.md")):
        made = (tmp_path / page.name).read_text(encoding="utf-8")
        assert made == page.read_text(encoding="utf-8"), "run `make docs`"


@pytest.mark.parametrize(
    ("page", "command", "also"),
    [
        ("pretrain.md", ["pretrain/main.py"], set()),
        ("pipeline.md", ["-m", "pipeline"], {"overwrite", "runner"}),
        ("finetune.md", ["-m", "finetune.glue"], {"seed", "learning_rate", "output_dir"}),
    ],
    ids=["pretrain", "pipeline", "finetune"],
)
def test_every_option_of_help_has_a_row(page: str, command: list[str], also: set[str]) -> None:
    shown = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "COLUMNS": "1000"},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    helped = set(re.findall(r"^  --([\w.]+)", shown.stdout, flags=re.M))
    helped = {name for name in helped if not name.endswith(".help")}
    rows = re.findall(r"^\| `(?:--)?([\w.]+)` \|", (PAGES / page).read_text("utf-8"), flags=re.M)
    groups = {row.rpartition(".")[0] for row in rows}
    assert len(rows) == len(set(rows)) > 30
    assert helped - also - {"config", "print_config"} - groups <= set(rows)
