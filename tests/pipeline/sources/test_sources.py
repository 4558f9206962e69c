from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.sources import plan, reader

KINDS = get_args(get_type_hints(Source)["kind"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_reader(kind: str) -> None:
    assert callable(reader(kind).find)
    assert callable(reader(kind).read)


def test_missing_files_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no file matches"):
        plan([Source(kind="text", paths=[str(tmp_path / "*.txt")])], 100)


@pytest.mark.parametrize("encoding", ["cp125", "rot13", "hex", ""])
def test_an_unknown_encoding_is_told_with_its_key(encoding: str) -> None:
    (problem,) = Source(kind="text", paths=["x"], encoding=encoding).problems("sources[0].")
    assert problem.startswith(f"sources[0].encoding: {encoding!r}")
