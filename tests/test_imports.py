"""The borders of the house: the three stages meet at files only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("pipeline", "pretrain", "finetune", "demo")
FORBIDDEN = {
    "pipeline": {"torch", "deepspeed", "transformers", "pretrain", "finetune", "demo"},
    "pretrain": {"apache_beam", "pipeline", "finetune", "demo"},
    "finetune": {"apache_beam", "deepspeed", "pipeline", "pretrain", "demo"},
    "demo": {"apache_beam", "torch", "deepspeed", "pipeline", "pretrain", "finetune"},
}
ONLY_IN = {
    "apache_beam": {"pipeline/graph.py", "pipeline/sources/urls.py", "pipeline/worker.py"},
    "deepspeed": {"pretrain/engine.py", "pretrain/optim.py", "pretrain/ranks.py"},
}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_another(stage: str) -> None:
    files = list((ROOT / stage).rglob("*.py"))
    assert files
    for file in files:
        assert not imported(file) & FORBIDDEN[stage], file


@pytest.mark.parametrize("library", ONLY_IN)
def test_an_engine_is_imported_only_where_it_belongs(library: str) -> None:
    users = {
        str(file.relative_to(ROOT))
        for stage in STAGES
        for file in (ROOT / stage).rglob("*.py")
        if library in imported(file)
    }
    assert users == ONLY_IN[library]


def test_no_file_is_a_drawer_for_everything() -> None:
    for stage in STAGES:
        for file in (ROOT / stage).rglob("*.py"):
            assert file.stem not in {"utils", "helpers", "common", "misc"}, file
            assert len(file.read_text().splitlines()) <= 400, file
