"""Files behind URLs, through Beam's filesystems; imported only where there is one."""

from __future__ import annotations

from typing import IO, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems


def match(pattern: str) -> list[tuple[str, int]]:
    """(path, bytes) of what a URL or a pattern of URLs names."""
    found = FileSystems.match([pattern])[0].metadata_list
    return [(entry.path, int(entry.size_in_bytes)) for entry in found]


def open_raw(path: str) -> IO[bytes]:
    """The bytes behind a URL as they lie there."""
    plain = CompressionTypes.UNCOMPRESSED
    return cast(IO[bytes], FileSystems.open(path, compression_type=plain))
