"""The same bytes on every runner that works without a download, with every step switched on."""

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import provenance
from pipeline.config import (
    Cleaning,
    Config,
    Decontamination,
    NearDuplicates,
    Packing,
    Repetition,
    Source,
    Split,
)
from pipeline.report.verify import problems
from pipeline.run import run
from pipeline.store.folder import Folder


def _hashes(folder: Path) -> dict[str, str]:
    names = [*folder.glob("*.tar"), *folder.glob("*/*.tar"), *folder.glob("*.json*")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(_content(path)).hexdigest()
        for path in sorted(names)
    }


def _content(path: Path) -> bytes:
    """The bytes of a file; of a manifest what it says of the data."""
    if path.name != "manifest.json":
        return path.read_bytes()
    return json.dumps(provenance.without(json.loads(path.read_text()))).encode()


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `book.txt`, and `RTE/dev.tsv` of which a sentence stands in it."""
    folder = tmp_path_factory.mktemp("book")
    sentence = "The council of the old town decided to close the northern bridge for repairs."
    (folder / "RTE").mkdir()
    (folder / "RTE/dev.tsv").write_text(f"index\tsentence1\tsentence2\n0\t{sentence}\tx\n")
    lines = [
        f"Paragraph {i} of the book tells how {i} riders met {i * 7} others." for i in range(90)
    ]
    lines[40] = f"{lines[40]} {sentence}"
    (folder / "book.txt").write_text("\n\n".join(lines))
    return folder


@pytest.fixture
def full_config(make_config: Callable[..., Config], corpus: Path, book: Path) -> Config:
    """Two sources, one seen two or three times, and no step left out."""
    return make_config(
        sources=[
            Source(kind="jsonl", name="words", paths=[f"{corpus}/*.zst"]),
            Source(
                kind="text",
                name="book",
                paths=[str(book / "book.txt")],
                documents="blank-lines",
                weight=2.5,
            ),
        ],
        cleaning=Cleaning(
            min_characters=30,
            boilerplate=True,
            lines="join",
            repetition=Repetition(max_top_ngram={}, max_duplicate_ngrams={}),
        ),
        near_duplicates=NearDuplicates(threshold=0.7),
        decontamination=Decontamination(paths=[str(book / "*/dev.tsv")]),
        packing=Packing(whole_sentences=True, more_seq_lens=[64]),
        split=Split(valid=0.15),
    )


@pytest.fixture(scope="module")
def one_worker() -> dict[str, dict[str, str]]:
    """Hashes of the run on one worker, kept for the others to compare with."""
    return {}


def _compare(config: Config, options: list[str], kept: dict[str, dict[str, str]]) -> None:
    folder = Path(config.output)
    if not kept:
        manifest = run(config, ["--direct_num_workers=1"], False, lambda *_: None)
        counts = manifest["counts"]["sources"]
        assert counts["book"]["contaminated"] == 1
        assert manifest["counts"]["contaminated"] == {"RTE": 1}
        assert counts["words"]["duplicate"] == 11
        assert counts["book"]["read"] == 90
        assert counts["book"]["repeated"] > counts["book"]["train"]  # each twice or three times
        assert problems(Folder(str(folder))) == []
        tar = folder / "seq-64/valid-00000-of-00001.tar"
        whole = tar.read_bytes()
        tar.write_bytes(whole[:-1])
        assert [line.split("\n")[0] for line in problems(Folder(str(folder)))] == [
            f"{tar} has {len(whole) - 1:,} bytes, expected {len(whole):,}"
        ]
        tar.write_bytes(whole)
        kept["one worker"] = _hashes(folder)
        shutil.rmtree(folder)
    run(config, options, False, lambda *_: None)
    assert _hashes(folder) == kept["one worker"]
    run(config, ["--runner=none"], False, lambda *_: None)  # finished: no runner is asked


def test_two_workers(full_config: Config, one_worker: dict[str, dict[str, str]]) -> None:
    _compare(full_config, ["--direct_num_workers=2"], one_worker)


@pytest.fixture
def dask_address() -> Iterator[str]:
    """A Dask cluster of two worker processes."""
    distributed = pytest.importorskip("distributed", reason="needs the extra `dask`")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address
        while client := distributed.client._get_global_client():
            client.close()  # the runner leaves one open for each graph


def test_dask(
    full_config: Config, one_worker: dict[str, dict[str, str]], dask_address: str
) -> None:
    runner = "--runner=apache_beam.runners.dask.dask_runner.DaskRunner"
    _compare(full_config, [runner, f"--dask_client_address={dask_address}"], one_worker)


@pytest.fixture
def job_endpoint() -> Iterator[str]:
    """A job server in a process of its own: what Flink and Spark are to a pipeline."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    module = "apache_beam.runners.portability.local_job_service_main"
    server = subprocess.Popen(
        [sys.executable, "-m", module, f"--port={port}"], stderr=subprocess.DEVNULL
    )
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                break
        time.sleep(0.1)
    yield f"localhost:{port}"
    server.terminate()
    server.wait()


def test_a_portable_job_server(
    full_config: Config, one_worker: dict[str, dict[str, str]], job_endpoint: str
) -> None:
    options = ["--runner=PortableRunner", f"--job_endpoint={job_endpoint}"]
    _compare(full_config, [*options, "--environment_type=LOOPBACK"], one_worker)
