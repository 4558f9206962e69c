import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.store import plans
from pipeline.store.folder import Folder


def test_a_plan_of_another_layout_is_refused(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config()
    folder = Folder(str(tmp_path))
    chunks = plans.make(folder, config)
    path = tmp_path / ".work/plan.json"
    content = json.loads(path.read_text())
    assert plans.make(folder, config) == chunks
    for layout, other in (
        (1, content["chunks"]),
        (2, content | {"layout": 2}),
        (plans.LAYOUT + 1, content | {"layout": plans.LAYOUT + 1}),
    ):
        raw = json.dumps(other)
        path.write_text(raw)
        with pytest.raises(
            PipelineError, match=rf"plan\.json: layout {layout}, expected {plans.LAYOUT}"
        ):
            plans.make(folder, config)
        assert path.read_text() == raw
