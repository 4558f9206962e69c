"""CONTRIBUTING, CHANGELOG and CITATION say what is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# What is to be written is KIND or NAME.
NAMED = {
    name
    for name in re.findall(r"`([\w.]+(?:/[\w.]*)+|\w+\.(?:md|toml|yml))`", CONTRIBUTING)
    if not re.search(r"KIND|NAME", name)
}


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["title"], citation["version"]) == (project["name"], VERSION)
    assert citation["license"] == project["license"]
    assert {"cff-version", "message", "authors"} <= citation.keys()
    assert [reference["year"] for reference in citation["references"]] == [2022, 2020]


def test_the_changelog_has_this_version() -> None:
    newest = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1]
    assert VERSION in newest


def test_files_named_in_contributing_exist() -> None:
    assert len(NAMED) > 20
    assert [name for name in sorted(NAMED) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("heading", re.findall(r'`(docs/[\w/]+\.md)`, "([^"]+)"', CONTRIBUTING))
def test_headings_named_in_contributing_exist(heading: tuple[str, str]) -> None:
    file, title = heading
    assert re.search(rf"^(#+ |\*\*){title}", (ROOT / file).read_text("utf-8"), flags=re.M)


def test_targets_named_in_contributing_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([\w-]+)", CONTRIBUTING, flags=re.M):
        assert f"\n{target}:" in makefile, target
