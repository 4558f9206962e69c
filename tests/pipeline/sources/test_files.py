import io
from pathlib import Path
from typing import Any

import apache_beam.io.filesystem as beam_filesystem
import pytest

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.sources import plan, read
from pipeline.sources.files import blocks, lines, matching

STORED = {"shelf://a/one.txt": b"first\n\nsecond", "shelf://a/two.txt": b"third"}


class Shelf(beam_filesystem.FileSystem):
    """A filesystem that is no disk, as gs:// and s3:// are."""

    @classmethod
    def scheme(cls) -> str:
        return "shelf"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath, *paths])

    def split(self, path: str) -> tuple[str, str]:
        return tuple(path.rsplit("/", 1))  # type: ignore[return-value]

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Any:
        for path, content in STORED.items():
            if path.startswith(dir_or_prefix):
                yield beam_filesystem.FileMetadata(path, len(content))

    def open(self, path: str, mime_type: str = "", compression_type: str = "") -> Any:
        return io.BytesIO(STORED[path])

    def exists(self, path: str) -> bool:
        return path in STORED

    def size(self, path: str) -> int:
        return len(STORED[path])

    def metadata(self, path: str) -> Any:
        return beam_filesystem.FileMetadata(path, len(STORED[path]))

    create = mkdirs = copy = rename = delete = last_updated = checksum = open  # unused


def test_urls_go_through_beams_filesystems() -> None:
    source = Source(kind="text", name="s", paths=["shelf://a/*.txt"], documents="blank-lines")
    found = [item for c in plan([source], 10) for file in c.files for item in read(source, file)]
    assert [(item.id, item.text) for item in found] == [  # type: ignore[union-attr]
        ("s/one.txt:1", "first\n"),
        ("s/one.txt:3", "second"),
        ("s/two.txt:1", "third"),
    ]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    content = "\n".join("x" * (i % 97) for i in range(40_000)).encode()
    (tmp_path / "a").write_bytes(content)
    assert b"".join(blocks(str(tmp_path / "a"))) == content
    assert list(lines(str(tmp_path / "a"))) == content.splitlines(keepends=True)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text("x")
    with pytest.raises(PipelineError, match="same name"):
        matching(Source(kind="text", paths=[str(tmp_path / "*" / "x.txt")]))
