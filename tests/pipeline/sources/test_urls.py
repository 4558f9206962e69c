import base64
import functools
import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.sources import plan, read
from pipeline.sources.files import matching
from pipeline.sources.records import Document
from tests.s3 import Bucket

OBJECTS = {
    "corpus/a.jsonl": b"".join(b'{"text": "text %d"}\n' % i for i in range(40)),
    "corpus/deep/b.jsonl.gz": gzip.compress(b'{"text": "packed"}\n'),
    "corpus/part[1] ~%20.jsonl": b'{"text": "odd name"}\n',
    "corpus/_SUCCESS": b"",
    "corpus/.hidden/c.jsonl": b"{",
    "corpus/README.md": b"not JSON",
}


def _put(bucket: Bucket) -> None:
    remote, root = fsspec.url_to_fs(bucket.url)
    for name, content in OBJECTS.items():
        remote.pipe_file(f"{root}/{name}", content)


def _texts(source: Source, chunk_bytes: int = 10**6) -> list[str]:
    found = [i for c in plan([source], chunk_bytes) for f in c.files for i in read(source, f)]
    return [item.text for item in found if isinstance(item, Document)]


def test_files_folders_and_patterns_on_s3(s3: Bucket) -> None:
    _put(s3)
    plain = [f"text {i}" for i in range(40)]
    for path, texts in {
        "corpus/a.jsonl": plain,
        "corpus/part[1] ~%20.jsonl": ["odd name"],
        "corpus/*.jsonl": [*plain, "odd name"],
        "corpus/**/*.gz": ["packed"],
        "corpus": [*plain, "packed", "odd name"],
        "corp*": [*plain, "packed", "odd name"],
    }.items():
        assert _texts(Source(kind="jsonl", paths=[f"{s3.url}/{path}"])) == texts, path
    source = Source(kind="jsonl", paths=[f"{s3.url}/corpus/a.jsonl"])
    assert len(plan([source], 200)) == -(-len(OBJECTS["corpus/a.jsonl"]) // 200)  # byte ranges
    assert _texts(source, 200) == plain
    assert [file.name for file in matching(source)] == ["jsonl/a.jsonl"]


def test_parquet_on_s3(s3: Bucket) -> None:
    texts = [f"text {i}" for i in range(95)]
    with fsspec.open(f"{s3.url}/a.parquet", "wb") as file:
        pq.write_table(pa.table({"text": texts}), file, row_group_size=10)
    assert _texts(Source(kind="parquet", paths=[f"{s3.url}/*.parquet"]), 100) == texts


def test_a_fork_reads_what_its_parent_has_read(s3: Bucket) -> None:
    _put(s3)
    source = Source(kind="jsonl", paths=[f"{s3.url}/corpus/*.jsonl"])
    files = [file for chunk in plan([source], 300) for file in chunk.files]
    before = [item for file in files for item in read(source, file)]
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            again = [item for file in files for item in read(source, file)]
            os.write(outlet, b"same" if again == before else b"other")
        finally:
            os._exit(0)
    os.close(outlet)
    with os.fdopen(inlet) as answer:
        assert answer.read() == "same"
    os.waitpid(child, 0)


@pytest.mark.parametrize("path", ["none", "none/*.jsonl", "*.txt"])
def test_what_is_not_there_is_one_line(s3: Bucket, path: str) -> None:
    with pytest.raises(PipelineError, match="no file matches") as raised:
        plan([Source(kind="text", name="x", paths=[f"{s3.url}/{path}"])], 100)
    assert "\n" not in str(raised.value)
    assert f"{s3.url}/{path}" in str(raised.value)


def test_an_object_that_has_changed_since_the_plan_is_refused(s3: Bucket) -> None:
    _put(s3)
    source = Source(kind="jsonl", paths=[f"{s3.url}/corpus/a.jsonl"])
    (chunk,) = plan([source], 10**6)
    remote, root = fsspec.url_to_fs(s3.url)
    remote.pipe_file(f"{root}/corpus/a.jsonl", b"{}")
    with pytest.raises(PipelineError, match=r"2 bytes, but .* when this run began"):
        list(read(source, chunk.files[0]))


def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="needs the extra `s3`")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(
        PipelineError, match=r"s3://b/x: can't be read \(.*AWS_ENDPOINT_URL"
    ) as told:
        plan([Source(kind="text", paths=["s3://b/x"])], 100)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "module", "says"),
    [
        ("s3://b/x", "s3fs", "pip install 'latemask[s3]'"),
        ("gs://b/x", "gcsfs", "pip install 'latemask[gcs]'"),
        ("abfs://b/x", "adlfs", "adlfs"),
        ("shelf://b/x", "none", "fsspec has no shelf://"),
    ],
)
def test_what_a_url_needs_is_one_line_before_any_work(
    url: str, module: str, says: str, tmp_path: Path
) -> None:
    program = (
        "import sys; from pipeline.__main__ import main; "
        f"sys.modules[{module!r}] = None; sys.exit(main(sys.argv[1:]))"
    )
    sources = json.dumps([{"kind": "text", "paths": [url]}])
    done = subprocess.run(
        [sys.executable, "-c", program, "--output", str(tmp_path / "data"), "--sources", sources],
        capture_output=True,
        text=True,
    )
    assert done.returncode
    (line,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert says in line
    assert url in line
    assert "Traceback" not in done.stderr


class _Server(http.server.SimpleHTTPRequestHandler):
    """Python's, which sends whole files only; for `/closed` it wants a password and a signature."""

    signature = "good"

    def do_GET(self) -> None:
        if "/closed/" in self.path:
            password = self.headers.get("Authorization", "").removeprefix("Basic ")
            is_open = base64.b64decode(password) == b"user:5EC"
            if not is_open or f"X-Amz-Signature={self.signature}" not in self.path:
                self.send_error(403)
                return
        super().do_GET()

    def do_HEAD(self) -> None:
        self.do_GET() if "/closed/" in self.path else super().do_HEAD()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def http_server(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of a server of `tmp_path`."""
    pytest.importorskip("aiohttp", reason="needs an extra")
    handler = functools.partial(_Server, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("chunk_bytes", [200, 10**6])
def test_http_is_read_whole_where_its_server_has_no_ranges(
    tmp_path: Path, http_server: str, chunk_bytes: int
) -> None:
    (tmp_path / "a.jsonl").write_bytes(OBJECTS["corpus/a.jsonl"])
    source = Source(kind="jsonl", paths=[f"http://{http_server}/a.jsonl"])
    assert len(plan([source], chunk_bytes)) == 1
    assert _texts(source, chunk_bytes) == [f"text {i}" for i in range(40)]
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(PipelineError, match=r"a\.parquet: its server sends whole files") as told:
        plan([Source(kind="parquet", paths=[f"http://{http_server}/a.parquet"])], 100)
    assert "\n" not in str(told.value)


def test_more_than_a_block_is_read_from_a_server_without_ranges(
    tmp_path: Path, http_server: str
) -> None:
    (tmp_path / "a.txt").write_bytes(b"abcdefg\n" * 1_200_000)
    (text,) = _texts(Source(kind="text", paths=[f"http://{http_server}/a.txt"]))
    assert len(text) == 9_600_000


def test_a_newly_signed_url_is_the_same_file(tmp_path: Path, http_server: str) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/a.jsonl").write_bytes(OBJECTS["corpus/a.jsonl"])

    def source(signature: str) -> Source:
        query = f"X-Amz-Signature={signature}&X-Amz-Date=1"
        url = f"http://user:5EC@{http_server}/closed/a.jsonl?{query}"
        return Source(kind="jsonl", paths=[url])

    (chunk,) = plan([source("good")], 10**6)
    assert "5EC" not in str(chunk.files)
    assert "good" not in str(chunk.files)
    assert chunk.files[0].name == "jsonl/a.jsonl"
    with pytest.raises(PipelineError, match="can't be read") as told:
        list(read(source("bad"), chunk.files[0]))
    assert "5EC" not in str(told.value)
    _Server.signature = "fresh"
    try:
        assert len(list(read(source("fresh"), chunk.files[0]))) == 40
    finally:
        _Server.signature = "good"
