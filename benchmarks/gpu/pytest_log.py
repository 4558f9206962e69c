"""A plugin of pytest: a line of JSON for each phase of each test, written as soon as it is over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


class Log:
    """Appends to a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest after set-up, call and tear-down."""
        reason = ""
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            reason = report.longreprtext[-2000:]
        phase = {
            "test": report.nodeid,
            "phase": report.when,
            "outcome": report.outcome,
            "seconds": report.duration,
            "reason": reason,
            "noted": dict(report.user_properties),
        }
        with self._file.open("a") as stream:
            stream.write(json.dumps(phase) + "\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--outcomes FILE`."""
    parser.addoption("--outcomes", type=Path, help="append each test's outcome as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Register the log where a file is named."""
    if file := config.getoption("--outcomes"):
        config.pluginmanager.register(Log(file))
