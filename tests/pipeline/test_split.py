from collections import Counter

from pipeline.config import Shards, Split
from pipeline.split import document_hash, shard_of, split_of


def test_shares_are_as_asked() -> None:
    digests = [document_hash(f"document {i}") for i in range(20_000)]
    counts = Counter(split_of(digest, Split(valid=0.1, tasks=0.3)) for digest in digests)
    assert abs(counts["valid"] / 20_000 - 0.1) < 0.01
    assert abs(counts["tasks"] / 20_000 - 0.3) < 0.015
    shards = Counter(shard_of(digest, "train", Shards(train=4)) for digest in digests)
    assert set(shards) == {0, 1, 2, 3}
    assert max(shards.values()) / min(shards.values()) < 1.1
