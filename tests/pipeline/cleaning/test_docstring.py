import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cleaning import docstring
from pipeline.cleaning.normalise import normalise


def test_the_prose_stays_and_the_code_goes() -> None:
    text = """Return the :class:`~a.b.Thing` of ``x``.

    Parameters
    ----------
    x : int

    .. versionadded:: 1.2
        Some note.

    For example::

        code(here)

    >>> f(1)
    2

    See `the guide <http://example.org/guide>`_ and :ref:`that one <label>`.

    ```python
    fenced()
    ```
    """
    assert normalise(docstring.prose(text)) == (
        "Return the Thing of x.\n\nParameters x : int\n\nFor example:\n\n"
        "See the guide and that one."
    )


def _inline(line: str) -> str:
    """The marks as simple patterns have them, whatever time those take."""
    line = re.sub(r":[a-zA-Z][\w:+.-]*:`~[\w.]*?(\w+)`", r"\1", line)
    line = re.sub(r":[a-zA-Z][\w:+.-]*:`[~.!]*([^`<]*?)(?:\s*<[^`>]*>)?`", r"\1", line)
    line = re.sub(r"`([^`<]+?)\s*<[^`>]+>`_{1,2}", r"\1", line)
    return re.sub(r"`+([^`\n]*)`+_{0,2}", r"\1", line).replace("**", "")


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["`", ":", "a", "~", ".", "<", ">", "_", " ", "b:", "**"])).map(
        "".join
    )
)
def test_linear_patterns_do_what_the_simple_ones_do(line: str) -> None:
    assert docstring.prose(f"x {line} y").split() == f"x {_inline(line)} y".split()


@pytest.mark.parametrize(
    "line",
    ["`" + " " * 30_000 + "x", ":a" * 30_000, ":a:`" + "~" * 30_000, "=" + " " * 30_000 + "x"],
)
def test_a_line_of_anything_takes_a_moment(line: str) -> None:
    start = time.process_time()
    docstring.prose(line)
    assert time.process_time() - start < 1
