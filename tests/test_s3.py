"""The S3 server of the tests is one: what is written is there, also after a kill -9."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from tests.s3 import Bucket, Server


def test_fsspec_finds_the_bucket_by_the_environment(s3: Bucket) -> None:
    with fsspec.open(f"{s3.url}/folder/a.txt", "wb") as file:
        file.write(b"content")
    remote, root = fsspec.url_to_fs(s3.url)
    assert remote.find(root) == [f"{root}/folder/a.txt"]
    assert remote.cat_file(f"{root}/folder/a.txt") == b"content"


@pytest.mark.long
def test_objects_outlive_a_kill(tmp_path: Path, s3_server: Server) -> None:
    server = Server(tmp_path / "own")
    server.start()
    try:
        remote, root = fsspec.url_to_fs(
            server.make_bucket("kept"), key="key", secret="secret", endpoint_url=server.endpoint
        )
        remote.pipe_file(f"{root}/a", b"acknowledged")
        server.kill()
        server.start()
        assert remote.cat_file(f"{root}/a") == b"acknowledged"
    finally:
        server.kill()
