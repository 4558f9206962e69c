"""The borders between packages: the three stages meet at files only, and need nothing that
measures them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = {"pipeline", "pretrain", "finetune"}
EVIDENCE = {"demo", "reproduce", "benchmarks"}
FORBIDDEN = {
    "pipeline": {"torch", "deepspeed", "transformers", "pretrain", "finetune"} | EVIDENCE,
    "pretrain": {"apache_beam", "pipeline", "finetune"} | EVIDENCE,
    "finetune": {"apache_beam", "deepspeed", "pipeline", "pretrain"} | EVIDENCE,
    "reproduce": {"apache_beam", "deepspeed", "pipeline", "demo"},
    "demo": {"apache_beam", "torch", "deepspeed", "reproduce", "benchmarks"} | STAGES,
}
ONLY_IN = {
    "apache_beam": {"pipeline/graph.py", "pipeline/local_runner.py", "pipeline/worker.py"},
    "deepspeed": {"pretrain/engine.py", "pretrain/zero.py"},
}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import, those below `if TYPE_CHECKING` and `try` included."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for name in ("body", "orelse", "handlers", "finalbody", "cases"):
                yield from statements(getattr(node, name, []))


def import_graph(package: Path) -> dict[str, set[str]]:
    """The modules of a package, each with those modules of it that it imports by name."""
    files = {}
    for file in package.rglob("*.py"):
        parts = file.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        named: set[str] = set()
        for node in statements(ast.parse(file.read_text()).body):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: a relative import"
                submodules = {f"{node.module}.{alias.name}" for alias in node.names}
                found = submodules & files.keys()
                named |= found if found == submodules else {*found, node.module or ""}
        graph[module] = named & files.keys() - {module}
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Modules that `start` imports, directly or through others."""
    found: set[str] = set()
    to_visit = [start]
    while to_visit:
        new = graph[to_visit.pop()] - found
        found |= new
        to_visit += new
    return found


def import_cycles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Groups of modules in which each imports every other, directly or through others."""
    after = {module: reachable(graph, module) for module in graph}
    return {
        frozenset(other for other in after[module] if module in after[other])
        for module in graph
        if module in after[module]
    }


def test_import_cycles_are_found_wherever_the_imports_are_written(tmp_path: Path) -> None:
    sources = {
        "__init__": "",
        "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import x\n",
        "b": "try:\n    from p import c\nexcept ImportError:\n    pass\n",
        "c": "class C:\n    import p.a\n",
        "d": "import p.e\n",
        "e": "def f():\n    import p.d\n",
    }
    (tmp_path / "p").mkdir()
    for name, source in sources.items():
        (tmp_path / "p" / f"{name}.py").write_text(source)
    assert import_cycles(import_graph(tmp_path / "p")) == {frozenset({"p.a", "p.b", "p.c"})}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_modules_import_each_other_in_a_cycle(package: str) -> None:
    assert import_cycles(import_graph(ROOT / package)) == set()


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_package_imports_what_it_must_not(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        assert not imported(file) & FORBIDDEN[package], file


@pytest.mark.parametrize("library", ONLY_IN)
def test_an_engine_is_imported_only_where_it_belongs(library: str) -> None:
    users = {
        str(file.relative_to(ROOT))
        for package in FORBIDDEN
        for file in (ROOT / package).rglob("*.py")
        if library in imported(file)
    }
    assert users == ONLY_IN[library]


def test_what_deepspeed_keeps_private_is_touched_in_one_file() -> None:
    """Its private names change between versions: whoever upgrades it reads zero.py alone."""
    used = re.compile(
        r"\b(_hp_mapping|_hp_optimizer_states_linked|_lazy_init_hp_params_optimizer_state|"
        r"_z3_optimizer|_get_fp32_opt_state_partition|_muon_pending_momentum|_uses_muon|"
        r"__compatible_ops__|ds_tensor|ds_numel|ds_id|partition_numel)\b"
    )
    files = {file for package in FORBIDDEN for file in (ROOT / package).rglob("*.py")}
    assert {file.name for file in files if used.search(file.read_text())} == {"zero.py"}
    importers = {module for module, names in import_graph(ROOT / "pretrain").items()
                 if "pretrain.zero" in names}  # fmt: skip
    assert importers == {"pretrain.engine"}


def test_no_file_is_a_drawer_for_everything() -> None:
    for package in FORBIDDEN:
        for file in (ROOT / package).rglob("*.py"):
            assert file.stem not in {"utils", "helpers", "common", "misc"}, file
            assert len(file.read_text().splitlines()) <= 400, file
