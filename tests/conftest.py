"""What tests of more than one package use: seeded draws, this machine's speed, an S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
import torch
from torch.utils.benchmark import Timer

from tests.s3 import Bucket, Server

_BUCKETS = count()


@pytest.fixture(autouse=True)
def _drawn_alike_in_any_order() -> None:
    """What a test draws must not depend on which tests its process ran before."""
    torch.manual_seed(0)


@pytest.fixture
def bf16_speed() -> float:
    """Times as fast as fp32 on one thread of this CPU; skips where the two are too near to tell."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        factor = torch.randn(384, 384, dtype=dtype)
        timer = Timer("factor @ factor", globals={"factor": factor}, num_threads=1)
        seconds[dtype] = min(timer.timeit(1).mean for _ in range(9))
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    if 0.8 < ratio < 1.25:
        pytest.skip(f"bf16 is {ratio:.2f} times as fast as fp32 here: either may be taken")
    return ratio


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real S3 server; the test is skipped where its binary can't run."""
    pytest.importorskip("s3fs", reason="needs the extra `s3`")
    server = Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def s3(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket on it; the environment of this test names the server and its key."""
    s3_server.announce(monkeypatch)
    return Bucket(s3_server.make_bucket(f"bucket-{next(_BUCKETS)}"), s3_server)
