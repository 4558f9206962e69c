import ast
from pathlib import Path

from pipeline.sources.docstrings import docstrings, installed_files


def test_docstrings_are_those_that_ast_finds() -> None:
    raw = Path(ast.__file__).read_bytes()
    found = dict(docstrings(raw, 1))
    expected = [
        text
        for node in ast.walk(ast.parse(raw))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (text := ast.get_docstring(node, clean=False))
    ]
    assert sorted(found.values()) == sorted(expected)
    assert found["NodeVisitor.visit"] == ast.NodeVisitor.visit.__doc__
    assert min(map(len, dict(docstrings(raw, 200)).values())) >= 200


def test_installed_files_are_sorted_and_leave_us_out() -> None:
    names = [name for _, name, _ in installed_files()]
    assert names == sorted(set(names))
    assert {"python/ast.py", "numpy/__init__.py"} <= set(names)
    assert not any(name.startswith(("pipeline/", "pretrain/", "finetune/")) for name in names)
