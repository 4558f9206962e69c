"""The real samples beside the checkout, with every filter on: a reader finds clean text."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import (
    Cleaning,
    Config,
    Decontamination,
    NearDuplicates,
    Packing,
    Shards,
    Source,
    Split,
    Tokenizer,
)
from pipeline.report.inspect import inspect
from pipeline.report.verify import problems
from pipeline.run import run
from pipeline.sections import Repetition
from pipeline.store.folder import Folder

SHARED = Path(__file__).parents[3] / "shared"


@pytest.mark.long
@pytest.mark.skipif(not SHARED.exists(), reason="needs the folder shared/ beside the checkout")
def test_wikipedia_books_and_wikitext_go_through(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    corpus, data = SHARED / "corpus", SHARED / "data"
    config = make_config(
        sources=[
            Source(kind="mediawiki", name="dump", paths=[f"{data}/wikipedia-xml/*.bz2"]),
            Source(kind="jsonl", name="enwiki", paths=[f"{corpus}/enwiki.jsonl.zst"]),
            Source(kind="jsonl", name="books", paths=[f"{corpus}/books.jsonl.zst"], weight=0.2),
            Source(
                kind="text", name="wikitext", paths=[f"{data}/wikitext/*.txt"], documents="line"
            ),
        ],
        seq_len=128,
        chunk_bytes=8_000_000,
        cleaning=Cleaning(
            boilerplate=True,
            min_characters=200,
            max_characters=10_000_000,
            repetition=Repetition(),
            languages=["en"],
        ),
        near_duplicates=NearDuplicates(),
        decontamination=Decontamination(paths=[f"{data}/glue/*/dev*.tsv"]),
        split=Split(valid=0.01),
        tokenizer=Tokenizer(vocab_size=8192, sample_bytes=5_000_000),
        packing=Packing(whole_sentences=True, more_seq_lens=[512]),
        shards=Shards(train=4, valid=1, block_sequences=256),
    )
    manifest = run(config, [], False, lambda *_: None)
    folder = Folder(config.output)
    assert problems(folder) == problems(folder.within("seq-512")) == []
    counts = manifest["counts"]
    assert counts["sources"]["dump"]["redirect"] == 99
    assert counts["sources"]["enwiki"]["read"] == 25_029
    assert counts["total"]["train"] > 20_000
    assert counts["contaminated"]
    sizes = [shard["sequences"] for shard in manifest["splits"]["train"]["shards"]]
    assert max(sizes) - min(sizes) < 256 + 5000  # a block and the longest book
    dropped = json.loads(folder.read("dropped.json"))
    reasons = {"too_short", "repetitive", "other_language", "contaminated", "near_duplicate"}
    assert reasons <= set(dropped)
    report = inspect(folder, tmp_path / "picture.png", sequences=8)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    for markup in ("[[", "{{", "<ref", "\\x00"):
        assert markup not in report
