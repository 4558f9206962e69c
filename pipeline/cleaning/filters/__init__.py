"""The filters that drop texts, each a module of this package, counted under the module's name.

A module has a dataclass `Filter`: its fields are the settings, `drops(text)` says whether a clean
text goes. `__post_init__` may raise ValueError for settings that can't work. A configuration turns
a filter on by its name, `cleaning.filters: {NAME: {SETTING: VALUE}}`, so a new one is a new file
here and nothing else; a NAME with dots, `package.module`, is one of somebody else's. Those in
`_WITH_KEYS` have keys of their own in `cleaning` instead.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import pkgutil
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import jsonargparse

from pipeline.sections import Cleaning


class Filter(Protocol):
    """What a module's `Filter` does."""

    def drops(self, text: str) -> bool:
        """Whether a clean text is not kept."""


_PARSING = threading.Lock()  # jsonargparse's state is its module's, and workers may be threads
_WITH_KEYS = ("too_short", "not_prose", "repetitive", "other_language")


def names(cleaning: Cleaning) -> list[str]:
    """All filters in the order in which a text meets them, those that `cleaning` names last."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    elsewhere = sorted(name for name in cleaning.filters if _is_elsewhere(name))
    return [*_WITH_KEYS, *sorted(found - set(_WITH_KEYS)), *elsewhere]


def _is_elsewhere(name: str) -> bool:
    """Whether a filter's name is that of a module outside this package."""
    return "." in name


def load(cleaning: Cleaning) -> dict[str, Filter]:
    """The filters that a configuration turns on, by name, in the order of `names`."""
    settings = _of_keys(cleaning)
    settings |= {name: given or {} for name, given in cleaning.filters.items()}
    return {name: _build(name, settings[name]) for name in names(cleaning) if name in settings}


def drop_reason(text: str, filters: dict[str, Filter]) -> str | None:
    """Name of the first filter that drops a text; None when it is kept."""
    return next((name for name, one in filters.items() if one.drops(text)), None)


def problems(cleaning: Cleaning, prefix: str) -> Iterator[str]:
    """Names of no filter, and settings that one doesn't have or can't take."""
    known = names(cleaning)
    for name, settings in cleaning.filters.items():
        if name in _WITH_KEYS:
            yield f"{prefix}filters.{name}: has keys of its own in {prefix[:-1]}; set it there"
        elif name not in known:
            near = difflib.get_close_matches(name, known, 1)
            file = f"{__path__[0]}/{name}.py"
            hint = f"did you mean {near[0]!r}?" if near else f"{file} would be one, and isn't there"
            yield f"{prefix}filters.{name}: no filter of this name; {hint}"
        else:
            try:
                _build(name, settings or {})
            except (
                argparse.ArgumentError,
                jsonargparse.ArgumentError,
                AttributeError,
                ImportError,
                TypeError,
                ValueError,
            ) as error:
                yield f"{prefix}filters.{name}: {' '.join(str(error).split())}"


def _of_keys(cleaning: Cleaning) -> dict[str, dict[str, Any]]:
    """Settings of the filters that have keys of their own."""
    found: dict[str, dict[str, Any]] = {
        "too_short": {"min_characters": cleaning.min_characters},
        "not_prose": {"min_alphabetic": cleaning.min_alphabetic},
    }
    if cleaning.repetition:
        found["repetitive"] = vars(cleaning.repetition)
    if cleaning.languages:
        found["other_language"] = {
            "languages": cleaning.languages,
            "min_language_score": cleaning.min_language_score,
        }
    return found


def _build(name: str, settings: dict[str, Any]) -> Filter:
    """One filter; jsonargparse checks names and types of its settings."""
    if not isinstance(settings, dict):
        raise TypeError(f"{settings!r}, expected settings as `SETTING: VALUE`")
    made = importlib.import_module(name if _is_elsewhere(name) else f"{__name__}.{name}").Filter
    with _PARSING:
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(made)
        built: Filter = made(**vars(parser.instantiate(parser.parse_object(settings))))
    return built
