from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cleaning.documents import clean_chunk
from pipeline.config import Config, Tokenizer
from pipeline.dedup import duplicates
from pipeline.split import document_hash, split_of
from pipeline.store import catalog, dropped, plans
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder
from pipeline.tokens import sample


def _deduplicated(folder: Folder, config: Config) -> Catalog:
    chunks = plans.make(folder, config)
    for chunk in chunks:
        clean_chunk(folder, chunk, config)
    catalog.write(folder, len(chunks))
    duplicates.match(folder, 0, 1)
    duplicates.drop(folder, 1)
    return Catalog.load(folder)


def _sample(folder: Folder, config: Config, listed: Catalog) -> list[str]:
    for sampled in sample.choose(listed, config):
        sample.write(folder, config, sampled)
    return list(sample.read(folder, config))


def test_a_small_corpus_is_read_whole_and_chosen_by_ids(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(tokenizer=Tokenizer(vocab_size=300, sample_bytes=40_000, seed=3))
    listed = _deduplicated(Folder(str(tmp_path)), config)
    texts = _sample(Folder(str(tmp_path)), config, listed)
    share = 40_000 / int(listed.array["text_bytes"].sum()) / (1 - config.split.valid)
    assert texts == [
        document.text
        for piece in range(len(listed))
        for document in dropped.kept_documents(Folder(str(tmp_path)), config, listed, piece)
        if split_of(document_hash(document.id), config.split) == "train"
        and int.from_bytes(document_hash(f"3:{document.id}")[:8], "big") < share * 2**64
    ]
    assert 0.8 * 40_000 < sum(map(len, texts)) < 1.2 * 40_000


def test_of_a_large_corpus_only_chosen_pieces_are_read(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SPREAD", 5)
    found = []
    for seed in (0, 0, 1):
        config = make_config(tokenizer=Tokenizer(vocab_size=300, sample_bytes=8000, seed=seed))
        listed = _deduplicated(Folder(str(tmp_path)), config)
        chosen = [sampled.piece for sampled in sample.choose(listed, config)]
        assert chosen == sorted(chosen)
        text_bytes = listed.array["text_bytes"]
        assert 5 * 8000 <= text_bytes[chosen].sum() < 5 * 8000 + text_bytes.max()
        texts = _sample(Folder(str(tmp_path)), config, listed)
        assert 0.5 * 8000 < sum(map(len, texts)) < 1.5 * 8000
        found.append((chosen, texts))
    assert found[0] == found[1] != found[2]
