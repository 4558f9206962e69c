import tracemalloc
from collections.abc import Iterator

import networkx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.dedup import components
from pipeline.dedup.components import FACTS, Survivors, flatten, join, new_parents

COUNT = 30
PAIRS = st.lists(st.tuples(*[st.integers(0, COUNT - 1)] * 2), max_size=60)
# few lengths and hashes, so that documents tie in the first and the second of them
KNOWN = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=COUNT, max_size=COUNT)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pairs=PAIRS, known=KNOWN, sizes=st.tuples(*[st.integers(1, 9)] * 3), seed=st.integers(0, 9))
def test_the_survivors_are_those_of_brute_force_in_any_batches_and_order(
    monkeypatch: pytest.MonkeyPatch,
    pairs: list[tuple[int, int]],
    known: list[tuple[int, int, int]],
    sizes: tuple[int, int, int],
    seed: int,
) -> None:
    monkeypatch.setattr(components, "_PAIRS_AT_ONCE", sizes[0])
    monkeypatch.setattr(components, "_NUMBERS_AT_ONCE", sizes[1])
    facts = np.zeros(COUNT, FACTS)
    facts["characters"], facts["hash"][:, 0], facts["hash"][:, 1] = np.array(known).T
    shuffled = np.random.default_rng(seed).permutation(np.array(pairs, np.int64).reshape(-1, 2))
    parents = new_parents(COUNT)
    for batch in np.array_split(shuffled, sizes[2]):
        join(parents, batch[:, 0], batch[:, 1])
    flatten(parents)
    survivors = Survivors(parents, lambda: iter(np.array_split(facts, sizes[2])))

    graph = networkx.Graph()
    graph.add_nodes_from(range(COUNT))
    graph.add_edges_from(pairs)
    kept_of: dict[int, int] = {}
    for component in networkx.connected_components(graph):
        assert {*parents[list(component)].tolist()} == {min(component)}
        kept = min(component, key=lambda i: (-known[i][0], *known[i][1:], i))
        kept_of |= {i: kept for i in component if i != kept}
    assert {*np.flatnonzero(survivors.dropped).tolist()} == {*kept_of}
    examples = survivors.examples(3)
    smallest = sorted(kept_of, key=lambda i: (known[i][1], i))[:3]
    assert examples == [(i, kept_of[i]) for i in smallest]


def test_a_chain_over_all_batches_is_one_component() -> None:
    count = 3000
    links = np.random.default_rng(0).permutation(count - 1)
    parents = new_parents(count)
    for batch in np.array_split(links, 500):
        join(parents, batch, batch + 1)
    flatten(parents)
    assert not parents.any()


def test_memory_is_forty_bytes_a_document_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_PAIRS_AT_ONCE", 1000)
    monkeypatch.setattr(components, "_NUMBERS_AT_ONCE", 1000)
    count, batches = 500_000, 500
    rng = np.random.default_rng(0)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, count, 1000):
            block = np.zeros(1000, FACTS)
            block["hash"][:, 0] = np.arange(start, start + 1000)
            block["characters"] = 9
            yield block

    tracemalloc.start()
    parents = new_parents(count)
    for batch in range(batches):  # three pairs a document: pairs themselves take nothing
        first = batch * 1000 + 2 * np.arange(500).repeat(3)
        join(parents, first, first + rng.integers(0, 2, len(first)))
        join(parents, first, first + 1)
    flatten(parents)
    survivors = Survivors(parents, blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert survivors.dropped.sum() == count // 2  # the worst case: all documents are in pairs
    assert peak < 40 * count
