import ast
import gc
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.sources.python_docs import docstrings, installed_files


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


def test_workers_may_be_threads() -> None:
    raw = b'"""' + b"A docstring with an odd escape, \\d. " * 9 + b'"""\nx = 1\n'
    filters = list(warnings.filters)
    interval = sys.getswitchinterval()

    def found_in_many(_: int) -> list[int]:
        return [len(list(docstrings(raw, 200))) for _ in range(300)]

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(found_in_many, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert found == [[1] * 300] * 4
    assert list(warnings.filters) == filters  # else this process would hide all warnings
    assert gc.isenabled()
