from pathlib import Path

import pytest

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.sources import plan


def test_missing_files_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no file matches"):
        plan([Source(kind="text", paths=[str(tmp_path / "*.txt")])], 100)
