"""The same bytes on every runner that works without a download, with every step switched on."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import provenance
from pipeline.config import (
    Cleaning,
    Config,
    Decontamination,
    NearDuplicates,
    Packing,
    Source,
    Split,
)
from pipeline.errors import PipelineError, WorkerLostError
from pipeline.report.verify import problems
from pipeline.run import run
from pipeline.sections import Repetition
from pipeline.stages import Stage
from pipeline.store import work
from pipeline.store.folder import Folder
from tests.pipeline import runners


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


@pytest.fixture(scope="module")
def full_config(
    config_for: Callable[..., Config], corpus: Path, book: Path
) -> Callable[[Path], Config]:
    """full_config(output): two sources, one seen two or three times, and no step missing."""

    def make(output: Path) -> Config:
        return config_for(
            output,
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

    return make


@pytest.fixture(scope="module")
def expected(
    full_config: Callable[[Path], Config], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Hashes of what one worker process makes."""
    folder = tmp_path_factory.mktemp("one-worker") / "data"
    manifest = run(full_config(folder), ["--direct_num_workers=1"], False, lambda *_: None)
    counts = manifest["counts"]["sources"]
    assert counts["book"]["contaminated"] == 1
    assert manifest["counts"]["contaminated"] == {"RTE": 1}
    assert counts["words"]["duplicate"] == 11
    assert counts["book"]["read"] == 90
    assert counts["book"]["repeated"] > counts["book"]["train"]  # each twice or three times
    assert problems(Folder(str(folder))) == []
    hashes = _hashes(folder)
    tar = folder / "seq-64/valid-00000-of-00001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1])
    assert [line.split("\n")[0] for line in problems(Folder(str(folder)))] == [
        f"{tar} has {len(whole) - 1:,} bytes, expected {len(whole):,}"
    ]
    return hashes


@pytest.mark.parametrize(
    "runner",
    [
        *("processes", "threads", "twice", "loopback", "pools", "dask"),
        *(pytest.param(name, marks=pytest.mark.long) for name in ("flink", "spark")),
    ],
)
def test_every_runner_makes_the_same_bytes(
    runner: str,
    full_config: Callable[[Path], Config],
    expected: dict[str, str],
    tmp_path: Path,
) -> None:
    config = full_config(tmp_path / "data")
    with runners.OPTIONS[runner](tmp_path) as options:
        run(config, options, False, lambda *_: None)
    assert _hashes(tmp_path / "data") == expected
    run(config, ["--runner=none"], False, lambda *_: None)  # finished: no runner is asked


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--runner=Dierct"], "Unexpected pipeline runner: Dierct"),
        (
            ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--job_server_timeout=1"],
            "no job server answers; see --job_endpoint",
        ),
    ],
)
def test_a_runner_that_cannot_be_used_is_named(
    make_config: Callable[..., Config], options: list[str], words: str
) -> None:
    with pytest.raises(PipelineError, match=words):
        run(make_config(), options, False, lambda *_: None)


def test_threads_are_as_silent_as_processes(
    make_config: Callable[..., Config],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger("apache_beam").setLevel(logging.NOTSET)  # as in a new process
    caplog.set_level(logging.INFO)
    with runners.threads(tmp_path) as options:
        run(make_config(), options, False, lambda *_: None)
    assert {record.name.partition(".")[0] for record in caplog.records} == {"pipeline"}
    assert capfd.readouterr() == ("", "")


def test_a_job_server_gets_the_options_that_it_alone_knows(
    make_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    from apache_beam.portability.api import beam_job_api_pb2 as api
    from apache_beam.runners.job.utils import struct_to_dict
    from apache_beam.runners.portability.local_job_service import LocalJobServicer

    class JavaLike(LocalJobServicer):
        def DescribePipelineOptions(self, request: Any, context: Any = None) -> Any:  # noqa: N802
            option = api.PipelineOptionDescriptor(name="executionModeForBatch")
            return api.DescribePipelineOptionsResponse(options=[option])

        def Prepare(self, request: Any, context: Any = None) -> Any:  # noqa: N802
            got.update(struct_to_dict(request.pipeline_options))
            raise RuntimeError("that is enough")

    got: dict[str, Any] = {}
    server = JavaLike(None)
    endpoint = f"--job_endpoint=localhost:{server.start_grpc_server(0)}"
    options = ["--runner=PortableRunner", endpoint, "--environment_type=LOOPBACK"]
    options += ["--executionModeForBatch=BATCH_FORCED"]
    try:
        with pytest.raises(WorkerLostError, match="that is enough"):
            run(make_config(), options, False, lambda *_: None)
    finally:
        server.stop()
    assert got["beam:option:executionModeForBatch:v1"] == "BATCH_FORCED"
    assert "Discarding" not in caplog.text


def test_elements_may_run_twice_at_once(
    full_config: Callable[[Path], Config],
    expected: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a lost answer, with the first attempt still running in the same process."""

    def run_twice(folder: Folder, config: Config, stages: list[Stage], _: list[str]) -> None:
        for stage in stages:
            elements = stage.elements(folder, config)
            attempts = [element for element in elements for _ in range(2)]
            with ThreadPoolExecutor(4) as threads:
                counts = list(threads.map(partial(stage.work, folder, config), attempts))
            total = Counter(done=len(elements))
            for count in counts[::2]:
                total.update(count)
            work.write_json(folder, work.sum_name(stage.name), total)

    monkeypatch.setattr("pipeline.run.load_graph", lambda: SimpleNamespace(run=run_twice))
    run(full_config(tmp_path / "data"), [], False, lambda *_: None)
    assert _hashes(tmp_path / "data") == expected
