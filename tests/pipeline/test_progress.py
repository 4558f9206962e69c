import threading
from pathlib import Path

import pytest

from pipeline.progress import Step, watched


def test_steps_follow_one_another_and_tell_what_was_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, int, int, str]] = []
    first = [tmp_path / "a", tmp_path / "b"]
    asked = threading.Event()

    def second() -> list[Path]:
        assert all(path.exists() for path in first)
        asked.set()
        return [tmp_path / "c", tmp_path / "d"]

    steps = [
        Step("one", lambda: first, lambda path: {"bytes": int(path.read_text())}),
        Step("two", second),
    ]
    with caplog.at_level("INFO"), watched(steps, lambda *now: told.append(now)):
        for path in first:
            path.write_text("3000000")
        assert asked.wait(10)
        (tmp_path / "c").write_text("")
    assert told[-1] == ("two", 1, 2, "")
    ends = [numbers for step, done, total, numbers in told if (step, done) == ("one", total)]
    assert ends[0].startswith("6 MB (")
    assert [record.message.split(":")[0] for record in caplog.records] == ["one"]  # two has no end
