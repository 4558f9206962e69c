import random
import re
from collections.abc import Callable
from itertools import combinations

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import NearDuplicates
from pipeline.dedup.near_duplicates import candidates
from pipeline.sources.records import Document
from pipeline.split import document_hash
from pipeline.store.folder import Folder

Drop = Callable[..., dict[str, str]]


def _grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def _corpus() -> list[Document]:
    """600 texts, two thirds of them with planted copies from slightly to heavily changed."""
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(400)]
    documents = []
    for number in range(200):
        words = [rng.choice(vocabulary) for _ in range(rng.randrange(80, 300))]
        documents.append(Document(f"{number}", " ".join(words), "s"))
        for copy in range(2):
            changed = list(words)
            for at in rng.sample(range(len(words)), rng.randrange(0, len(words) // 6)):
                changed[at] = rng.choice(vocabulary)
            if rng.random() < 0.3:
                changed += [rng.choice(vocabulary) for _ in range(5)]
            documents.append(Document(f"{number}-{copy}", " ".join(changed), "s"))
    rng.shuffle(documents)
    return documents


def test_recall_and_precision_against_brute_force_jaccard(drop: Drop) -> None:
    near = NearDuplicates(threshold=0.8)
    documents = _corpus()
    dropped = drop([documents[:150], documents[150:151], documents[151:]], near)
    grams = {d.id: _grams(d.text) for d in documents}
    by_number: dict[str, list[str]] = {}
    for d in documents:
        by_number.setdefault(d.id.split("-")[0], []).append(d.id)
    similarity = {  # others are random texts: their similarity is 0
        pair: len(grams[pair[0]] & grams[pair[1]]) / len(grams[pair[0]] | grams[pair[1]])
        for group in by_number.values()
        for pair in combinations(group, 2)
    }
    graph = networkx.Graph([pair for pair, s in similarity.items() if s >= 0.8])
    true = {i for component in networkx.connected_components(graph) for i in component}
    expected = sum(len(c) - 1 for c in networkx.connected_components(graph))
    assert expected > 60
    right = [i for i in dropped if i in true]
    assert len(right) / expected >= 0.93  # recall: the estimate's error at the threshold
    assert len(right) / len(dropped) >= 0.93  # precision
    for i in dropped:
        best = max((s for pair, s in similarity.items() if i in pair), default=0)
        assert best >= 0.8 - 4 * 0.037  # never far from it: 4 deviations of 120 hashes


def test_the_longest_of_a_component_stays(drop: Drop) -> None:
    rng = random.Random(3)
    words = [f"w{rng.randrange(900)}" for _ in range(300)]
    chain = [Document(str(i), " ".join(words[: 240 + 12 * i]), "s") for i in range(6)]
    apart = Document("apart", " ".join(f"v{i}" for i in range(300)), "s")
    copy = Document("copy", chain[-1].text, "s")
    dropped = drop([[*chain[::2], apart], [*chain[1::2], copy]], NearDuplicates(threshold=0.8))
    kept = min("5", "copy", key=document_hash)
    (duplicate,) = {"5", "copy"} - {kept}
    assert dropped == {**{str(i): "near_duplicate" for i in range(5)}, duplicate: "duplicate"}


@pytest.mark.parametrize("of", [1, 3])
def test_a_group_of_copies_only_has_nothing_to_compare(drop: Drop, of: int) -> None:
    texts = ["one text of some words", "another text of other words"]
    ids = sorted("abcd", key=document_hash)  # of equal texts the smallest hash stays
    first = [Document(id, text, "s") for id, text in zip(ids[:2], texts, strict=True)]
    copies = [Document(id, text, "s") for id, text in zip(ids[2:], texts, strict=True)]
    expected = dict.fromkeys(ids[2:], "duplicate")
    assert drop([copies, first], NearDuplicates(), of) == expected


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=40))
def test_candidates_connect_the_rows_of_a_key_and_no_others(found: list[tuple[int, int]]) -> None:
    keys, rows = np.array(found, np.uint64).reshape(-1, 2).T
    pairs = candidates(keys, rows)
    graph = networkx.Graph()
    graph.add_nodes_from({row for _, row in found})
    graph.add_edges_from(
        pair for key in range(5) for pair in combinations({r for k, r in found if k == key}, 2)
    )
    assert {(int(a), int(b)) for a, b in pairs} <= {tuple(sorted(edge)) for edge in graph.edges}
    assert len(pairs) <= 2 * len(found)
    ours = networkx.Graph()
    ours.add_nodes_from(graph.nodes)
    ours.add_edges_from(pairs.tolist())
    components = networkx.connected_components
    assert {*map(frozenset, components(ours))} == {*map(frozenset, components(graph))}


def test_any_number_of_parts_drops_the_same_and_reads_every_signature_once(
    drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = _corpus()
    pieces = [documents[:150], documents[150:151], documents[151:]]
    near = NearDuplicates(bands=6, rows=4, threshold=0.7)
    expected = drop(pieces, near, 1)
    assert 100 < len(expected) < 400
    read = Folder.read
    lengths: list[int] = []

    def counted(self: Folder, name: str, *bounds: int | None) -> bytes:
        content = read(self, name, *bounds)
        lengths.extend([len(content)] if name.endswith(".signatures.npy") else [])
        return content

    monkeypatch.setattr(Folder, "read", counted)
    for of in (2, 7, 24, 60):  # there are 24 hashes
        lengths.clear()
        assert drop(pieces, near, of) == expected
        kept = len(documents) - [*expected.values()].count("duplicate")
        assert sum(lengths) == kept * 24 * 4
