import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.cleaning import filters
from pipeline.config import Cleaning, Config, Source
from pipeline.errors import PipelineError
from pipeline.sections import Repetition
from tests.pipeline.folders import IN_MEMORY, make

NEW = '''
"""Texts in capitals."""
from dataclasses import dataclass

@dataclass(kw_only=True)
class Filter:
    """Drops texts of which more than `most` are capitals."""

    most: float = 0.5

    def __post_init__(self) -> None:
        if self.most > 1:
            raise ValueError(f"most: {self.most}, must be a share")

    def drops(self, text: str) -> bool:
        return sum(map(str.isupper, text)) > self.most * len(text)
'''


@pytest.fixture
def shouting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file more in the package."""
    (tmp_path / "shouting.py").write_text(NEW)
    monkeypatch.setattr(filters, "__path__", [*filters.__path__, str(tmp_path)])


def _reason(text: str, **keys: object) -> str | None:
    return filters.drop_reason(text, filters.load(Cleaning(**keys)))  # type: ignore[arg-type]


def test_each_drop_reason() -> None:
    rules = {"min_characters": 10, "min_alphabetic": 0.5}
    assert _reason("short", **rules) == "too_short"
    assert _reason("1234567890 ab", **rules) == "not_prose"
    assert _reason("a good text", **rules) is None


def test_rules_are_asked_for_one_by_one() -> None:
    german = (
        "Der schnelle braune Fuchs springt über den faulen Hund und läuft dann nach Hause. " * 2
    )
    assert _reason(german) is None
    assert _reason(german, languages=["en"]) == "other_language"
    assert _reason(german, languages=["en", "de"]) is None
    chorus = "\n".join(["A line that is sung again and again."] * 5)
    assert _reason(chorus) is None
    assert _reason(chorus, repetition=Repetition()) == "repetitive"


@pytest.mark.usefixtures("shouting")
def test_a_new_file_is_a_filter_with_settings_and_a_reason() -> None:
    text = "ALL OF THIS IS IN CAPITALS, " * 5
    assert filters.names(Cleaning())[-1] == "shouting"
    assert _reason(text) is None
    assert _reason(text, filters={"shouting": None}) == "shouting"
    assert _reason(text, filters={"shouting": {"most": 0.9}}) is None
    assert _reason("SHORT", filters={"shouting": {}}) == "too_short"


def test_a_filter_may_be_a_module_of_another_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_config: Callable[..., Config]
) -> None:
    (tmp_path / "house_rules").mkdir()
    (tmp_path / "house_rules" / "capitals.py").write_text(NEW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))  # of workers
    text = "ALL OF THIS IS IN CAPITALS, " * 5
    on = {"house_rules.capitals": {"most": 0.0}}
    assert _reason(text, filters=on) == "house_rules.capitals"
    assert _reason(text.lower(), filters=on) is None
    assert _reason("SHORT", filters=on) == "too_short"
    (tmp_path / "texts").mkdir()
    for number in range(12):
        (tmp_path / "texts" / f"{number}.txt").write_text(
            f"{text if number < 4 else text.lower()}number {number}"
        )
    source = Source(kind="text", paths=[f"{tmp_path}/texts/*.txt"])
    config = make_config(sources=[source], cleaning=Cleaning(filters=on))
    count = make(config, IN_MEMORY)["counts"]["total"]
    assert (count["house_rules.capitals"], count["train"] + count["valid"]) == (4, 8)


@pytest.mark.usefixtures("shouting")
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"shoutin": {}}, ["cleaning.filters.shoutin", "did you mean 'shouting'"]),
        ({"shouting": {"mots": 0.2}}, ["cleaning.filters.shouting", "mots"]),
        ({"shouting": {"most": "much"}}, ["cleaning.filters.shouting", "most", "much"]),
        ({"shouting": {"most": 2}}, ["most: 2", "must be a share"]),
        ({"shouting": 3}, ["cleaning.filters.shouting", "3"]),
        ({"nowhere.at_all": {}}, ["cleaning.filters.nowhere.at_all", "No module named 'nowhere'"]),
        ({"os.path": {}}, ["cleaning.filters.os.path", "no attribute 'Filter'"]),
        ({"too_short": {"min_characters": 3}}, ["too_short", "keys of its own in cleaning"]),
    ],
)
def test_what_a_filter_does_not_take_is_named(asked: dict[str, object], words: list[str]) -> None:
    with pytest.raises(PipelineError) as error:
        Config(output="a", sources=[Source(kind="python-docs")], cleaning=Cleaning(filters=asked))
    for word in words:
        assert word in str(error.value)


def test_workers_may_be_threads() -> None:
    cleaning = Cleaning(repetition=Repetition(), languages=["en"])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: list(filters.load(cleaning)), range(24)))
    finally:
        sys.setswitchinterval(interval)
    assert found == [["too_short", "not_prose", "repetitive", "other_language"]] * 24
