from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cleaning.documents import clean_chunk
from pipeline.config import Config, Packing, Shards, Source
from pipeline.config import Tokenizer as Settings
from pipeline.dedup import duplicates
from pipeline.shards.assign import assign_shards, shard_documents
from pipeline.store import catalog, plans
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder
from pipeline.tokens.encoded import _encoded, copies_of, split_sentences, tokenize_group
from pipeline.tokens.train import train_bpe, train_wordpiece
from pipeline.tokens.words import Words

TEXTS = [
    "Dr. Smith went to Washington. He arrived at 3 p.m. on Tuesday!\n\nA new paragraph. So?",
    "One sentence only, without an end",
    "Wait... what? Yes.  Two blanks.\nA line.\n\n\nThen more. «Oui.» Ok.",
] * 3
BPE = train_bpe(lambda: iter(TEXTS), Settings(vocab_size=400))
WORDPIECE = train_wordpiece(lambda: iter(TEXTS), Settings(vocab_size=300, kind="wordpiece"))


@given(st.lists(st.text(alphabet="aB .!?\n'é1", max_size=40), max_size=6))
def test_sentence_by_sentence_gives_the_tokens_of_the_whole(texts: list[str]) -> None:
    texts = [*texts, *TEXTS]
    for model in (BPE, WORDPIECE):
        whole = _encoded(texts, Words(model, "uint16"), False)
        parts = _encoded(texts, Words(model, "uint16"), True)
        for text, (ids, none), (same, starts) in zip(texts, whole, parts, strict=True):
            assert ids.tolist() == same.tolist(), text
            assert len(none) == 0
            assert len(starts) == len(ids)
            assert starts.sum() <= len(split_sentences(text))
            assert "".join(split_sentences(text)) == text
            assert not len(ids) or starts[0]


def test_marks_stand_where_sentences_begin() -> None:
    ((ids, starts),) = _encoded(TEXTS[:1], Words(BPE, "uint16"), True)
    pieces = [
        BPE.decode(part.tolist()).strip() for part in np.split(ids, np.flatnonzero(starts)[1:])
    ]
    assert [piece for piece in pieces if piece] == [
        "Dr. Smith went to Washington.",
        "He arrived at 3 p.m. on Tuesday!",
        "A new paragraph.",
        "So?",
    ]


def test_copies_are_the_weight_on_average() -> None:
    for weight in (1.0, 2.0, 2.3):
        copies = [copies_of(f"document {i}", weight) for i in range(5000)]
        assert abs(np.mean(copies) - weight) < 0.03
        assert set(copies) <= {int(weight), int(weight) + 1}


def test_groups_of_any_size_give_the_same_shards(
    make_config: Callable[..., Config],
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Source(kind="jsonl", name="words", paths=[f"{corpus}/*.zst"], weight=1.5)
    packing = Packing(whole_sentences=True)
    config = make_config(sources=[source], packing=packing, shards=Shards(train=3, valid=1))
    found = []
    for most in (4096, 5, 1):
        monkeypatch.setattr(catalog, "GROUPS", most)
        folder = Folder(str(tmp_path / str(most)))
        chunks = plans.make(folder, config)
        for chunk in chunks:
            clean_chunk(folder, chunk, config)
        catalog.write(folder, len(chunks))
        duplicates.match(folder, 0, 1)
        duplicates.drop(folder, 1)
        groups = Catalog.load(folder).groups
        assert groups == min(most, 60)
        words = Words(BPE, config.dtype)
        receipts = [tokenize_group(folder, group, config, words) for group in range(groups)]
        assert tokenize_group(folder, 0, config, words) == receipts[0]
        assign_shards(folder, groups, config.shards, fewest_tokens=1)
        counts = sum((Counter(r["counts"]["words"]) for r in receipts), Counter())
        shards = [
            shard_documents(folder, split, shard, dtype=np.dtype(config.dtype), sentences=True)
            for split, shard in (("train", 0), ("train", 1), ("train", 2), ("valid", 0))
        ]
        assert sum(len(shard.tokens) for shard in shards) == sum(r["copies"] for r in receipts)
        found.append((counts, [[[*map(bytes, a)] for a in shard if a] for shard in shards]))
    assert found[0] == found[1] == found[2]
    assert found[0][0]["repeated"] > 100
