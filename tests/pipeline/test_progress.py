import threading
from pathlib import Path

import pytest

from pipeline.progress import Step, watched
from pipeline.store.folder import Folder


def test_steps_follow_one_another_and_tell_what_was_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, int, int, str]] = []
    folder = Folder(str(tmp_path))
    first = ["a", "parts/b"]
    asked = threading.Event()

    def second() -> list[str]:
        assert all(folder.exists(name) for name in first)
        asked.set()
        return ["c", "d"]

    steps = [
        Step("one", lambda: first, lambda name: {"bytes": int(folder.read(name))}),
        Step("two", second),
    ]
    with caplog.at_level("INFO"), watched(folder, steps, lambda *now: told.append(now)):
        for name in first:
            folder.write(name, b"3000000")
        assert asked.wait(10)
        folder.write("c", b"")
    assert told[-1] == ("two", 1, 2, "")
    ends = [numbers for step, done, total, numbers in told if (step, done) == ("one", total)]
    assert ends[0].startswith("6.0 MB (")
    assert [record.message.split(":")[0] for record in caplog.records] == ["one"]  # two has no end
