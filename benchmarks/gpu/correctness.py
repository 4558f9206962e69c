"""tests/gpu in a process: which tests passed, in how many seconds, and what they noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.records import Records
from benchmarks.gpu.time_limit import TimeLimit
from benchmarks.gpu.time_limit import run as run_process


def run(records: Records, limit: TimeLimit, runs_dir: Path) -> None:
    """Run the tests that no earlier call has seen pass."""
    tests: dict[str, Any] = records.get("correctness").get("tests", {})
    if records.get("correctness").get("finished") and not failed(tests):
        return
    file = runs_dir / "tests.jsonl"
    file.unlink(missing_ok=True)
    command: list[object] = ["-m", "pytest", "tests/gpu", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "benchmarks.gpu.pytest_log", "--outcomes", file]
    for name, test in tests.items():
        if test["outcome"] == "passed":
            command += ["--deselect", name]
    code = run_process(command, runs_dir / "tests.log", limit)
    tests |= outcomes(file)
    records.put(
        "correctness",
        # pytest's 1: some failed; 5: nothing is left to be run.
        {"finished": code in (0, 1, 5), "exit_code": code, "tests": tests},
    )


def failed(tests: dict[str, Any]) -> list[str]:
    """Names of those that failed, or broke before they began."""
    return [name for name, test in tests.items() if test["outcome"] == "failed"]


def outcomes(file: Path) -> dict[str, Any]:
    """What `pytest_log` wrote so far, by test; the worst of set-up, call and tear-down counts."""
    tests: dict[str, Any] = {}
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    for phase in map(json.loads, lines):
        test = tests.setdefault(phase["test"], {"outcome": "passed", "seconds": 0.0})
        test["seconds"] = round(test["seconds"] + phase["seconds"], 3)
        if phase["outcome"] != "passed":
            test["outcome"] = phase["outcome"]
            test["reason"] = phase["reason"]
        if phase["noted"]:
            test["noted"] = phase["noted"]
        test["ended"] = phase["phase"] == "teardown"
    return {
        name: {key: value for key, value in test.items() if key != "ended"}
        for name, test in tests.items()
        if test["ended"]
    }
