"""Connected components of pairs of documents, and the one document of each that stays.

Pairs come in batches of any size and order, and only one batch is held at a time. A parent per
document (`join`) and a reference to the best document of each component (`survivors`) are all
that grows: 5 bytes a document (9 from 2^32 documents on), and 40 a component.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

FACTS = np.dtype([("hash", "u8", 2), ("characters", "u8")])
_BEST = np.dtype([("facts", FACTS), ("number", "u8")])
_PAIRS_AT_ONCE = 2_000_000  # scipy needs some 130 bytes a pair
_NUMBERS_AT_ONCE = 4_000_000

Blocks = Callable[[], Iterable[np.ndarray]]  # FACTS of all documents in their order, in blocks


def new_parents(count: int) -> np.ndarray:
    """uint32 or uint64 [count]: every document is a component of its own."""
    return np.arange(count, dtype="u4" if count <= 2**32 else "u8")


def join(parents: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Join the components of documents a and b, [pairs] each.

    A component's root is its smallest document, so `parents` in the end doesn't depend on the
    order or the batches of the pairs, once it is flattened.
    """
    from scipy.sparse import coo_matrix  # here, since one worker in all needs it
    from scipy.sparse.csgraph import connected_components

    for start in range(0, len(a), _PAIRS_AT_ONCE):
        stop = start + _PAIRS_AT_ONCE
        roots = np.stack([_roots(parents, numbers[start:stop]) for numbers in (a, b)])
        roots = roots[:, roots[0] != roots[1]]
        nodes, ends = np.unique(roots, return_inverse=True)
        ends = ends.reshape(2, -1)
        graph = coo_matrix((np.ones(ends.shape[1], bool), ends), (len(nodes), len(nodes)))
        _, labels = connected_components(graph, directed=False)
        _, smallest = np.unique(labels, return_index=True)
        parents[nodes] = nodes[smallest[labels]]


def flatten(parents: np.ndarray) -> None:
    """Let every document's parent be the root of its component."""
    for start, stop in _ranges(len(parents)):
        _roots(parents, np.arange(start, stop))


def _roots(parents: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The root of each document; shortens the paths there."""
    roots = parents[numbers]
    while True:
        above = parents[roots]
        if np.array_equal(above, roots):
            parents[numbers] = roots
            return roots
        roots = above


class Survivors:
    """Which documents of flattened `parents` are dropped, and what is kept in their stead.

    Of each component the longest text stays; of several, the one with the smallest document hash.
    """

    def __init__(self, parents: np.ndarray, facts: Blocks) -> None:
        self._parents = parents
        self._facts = facts
        self.dropped = np.zeros(len(parents), bool)
        """bool [documents]."""
        shared = np.zeros(len(parents), bool)  # roots of more than one document
        for start, stop in _ranges(len(parents)):
            some = parents[start:stop]
            shared[some[some != np.arange(start, stop)]] = True
        self._roots = np.flatnonzero(shared).astype(parents.dtype)
        self._best = np.zeros(len(self._roots), _BEST)
        self._best["number"] = len(parents)  # none yet
        start = 0
        for block in facts():
            members = np.flatnonzero(shared[parents[start : start + len(block)]])
            self._compare(members + start, block[members])
            start += len(block)
        assert start == len(parents), f"facts of {start:,} documents, expected {len(parents):,}"
        for start, stop in _ranges(len(parents)):
            self.dropped[start:stop] = shared[parents[start:stop]]
        self.dropped[self._best["number"]] = False

    def _compare(self, numbers: np.ndarray, facts: np.ndarray) -> None:
        """Let documents that are better than what their components have take its place."""
        components = np.searchsorted(self._roots, self._parents[numbers])
        rivals = np.unique(components)
        rivals = rivals[self._best["number"][rivals] < len(self._parents)]
        components = np.concatenate([components, rivals])
        rows = np.empty(len(components), _BEST)
        rows["facts"] = np.concatenate([facts, self._best["facts"][rivals]])
        rows["number"] = np.concatenate([numbers, self._best["number"][rivals]])
        by = rows["facts"]
        order = np.lexsort(
            (rows["number"], by["hash"][:, 1], by["hash"][:, 0], ~by["characters"], components)
        )
        touched, first = np.unique(components[order], return_index=True)
        self._best[touched] = rows[order[first]]

    def examples(self, count: int) -> list[tuple[int, int]]:
        """(dropped, kept) of the `count` dropped documents with the smallest hashes."""
        found: list[tuple[int, int]] = []
        start = 0
        for block in self._facts():
            at = np.flatnonzero(self.dropped[start : start + len(block)])
            hashes = block["hash"][at, 0]
            smallest = np.argsort(hashes, kind="stable")[:count]
            found += [(int(hashes[i]), start + int(at[i])) for i in smallest]
            found = sorted(found)[:count]
            start += len(block)
        numbers = np.array([number for _, number in found], np.int64)
        components = np.searchsorted(self._roots, self._parents[numbers])
        kept = self._best["number"][components]
        return [(int(number), int(other)) for number, other in zip(numbers, kept, strict=True)]


def _ranges(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _NUMBERS_AT_ONCE):
        yield start, min(start + _NUMBERS_AT_ONCE, count)
