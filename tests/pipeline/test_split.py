from collections import Counter

from pipeline.config import Split
from pipeline.split import document_hash, split_of


def test_shares_are_as_asked() -> None:
    digests = [document_hash(f"document {i}") for i in range(20_000)]
    counts = Counter(split_of(digest, Split(valid=0.1, tasks=0.3)) for digest in digests)
    assert abs(counts["valid"] / 20_000 - 0.1) < 0.01
    assert abs(counts["tasks"] / 20_000 - 0.3) < 0.015
