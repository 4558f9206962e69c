import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pipeline.config import Cleaning, Config, Shards, Source, Split, Tokenizer
from tests.pipeline import folders

WORDS = [
    a + b for a in ("mask", "lay", "tok", "riv", "gard", "lett") for b in ("er", "en", "ing", "s")
]


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words)).capitalize() + "."


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six JSON-lines files of 60 documents; in each, one is short and two are copies."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    copy = _text(rng, 50)
    for number in range(6):
        records = [{"id": f"{number}-{i}", "text": _text(rng, 60)} for i in range(57)]
        records += [{"id": f"{number}-short", "text": "Too short."}]
        records += [{"id": f"{number}-copy-{i}", "text": copy} for i in range(2)]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{number}.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    return folder


@pytest.fixture(scope="session")
def config_for(corpus: Path) -> Callable[..., Config]:
    """A function config(output, **changes) for a run over `corpus`."""

    def make(output: Path, **changes: Any) -> Config:
        values: dict[str, Any] = {
            "output": str(output),
            "sources": [Source(kind="jsonl", name="words", paths=[f"{corpus}/*.zst"])],
            "seq_len": 32,
            "chunk_bytes": 2000,
            "cleaning": Cleaning(min_characters=50),
            "split": Split(valid=0.1),
            "tokenizer": Tokenizer(vocab_size=300),
            "shards": Shards(train=3, valid=1, block_sequences=16),
        }
        return Config(**{**values, **changes})

    return make


@pytest.fixture
def make_config(config_for: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    """The same, into a new folder unless `output` is given."""

    def make(output: str | Path = tmp_path / "data", **changes: Any) -> Config:
        return config_for(Path(output), **changes)

    return make


@pytest.fixture(scope="session")
def finished(config_for: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers make of the corpus; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "data"
    folders.make(config_for(folder), "--direct_num_workers=2")
    return folder
