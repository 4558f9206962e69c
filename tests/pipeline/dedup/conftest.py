from collections.abc import Callable

import pytest

from pipeline.config import Config, NearDuplicates, Source
from pipeline.dedup import duplicates, near_duplicates
from pipeline.sources.records import Document
from pipeline.store import catalog, dropped, pieces, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder

Drop = Callable[..., dict[str, str]]


@pytest.fixture
def drop(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Drop:
    """A function (pieces of documents, settings, parts of the hash space) -> reason by id of what
    deduplication drops."""
    monkeypatch.setattr(catalog, "GROUPS", 2)

    def run(
        parts: list[list[Document]], near: NearDuplicates | None, of: int = 3
    ) -> dict[str, str]:
        folder = Folder(str(tmp_path_factory.mktemp("dedup")))
        source = Source(kind="text", paths=["unread"])
        config = Config(output=folder.url, sources=[source], near_duplicates=near)
        for number, documents in enumerate(parts):
            name = pieces.piece_name(number, 0)
            pieces.write_piece(folder, name, documents, duplicates.records(documents))
            work.write_json(folder, pieces.chunk_name(number), {"pieces": [name]})
        catalog.write(folder, len(parts))
        for part in range(of):
            duplicates.match(folder, part, of)
        counts = [duplicates.drop(folder, of)]
        listed = Catalog.load(folder)
        if near:
            for group in range(listed.groups):
                near_duplicates.sign(folder, config, group)
            for part in range(of):
                near_duplicates.match(folder, part, of)
            for part in range(of):
                near_duplicates.list_candidates(folder, part, of)
            for part in range(near_duplicates.hash_parts(config, of)):
                near_duplicates.compare(folder, config, part, of)
            counts.append(near_duplicates.drop(folder, config, of))
        found = {
            parts[piece][ordinal].id: reason
            for piece in range(len(parts))
            for ordinal, reason in dropped.of_piece(folder, config, listed, piece).items()
        }
        kept = sum(map(len, parts))
        for reason, count in zip(dropped.reasons(config), counts, strict=True):
            assert count[reason] == list(found.values()).count(reason)
            kept -= count[reason]
            assert count["kept"] == kept
            _check_examples(dropped.examples(folder, reason), parts, found, reason)
        return found

    return run


def _check_examples(
    examples: list[list[object]], parts: list[list[Document]], found: dict[str, str], reason: str
) -> None:
    """Each names a document that is dropped for this reason, and one that is kept."""
    ids = {
        (pieces.piece_name(piece, 0), ordinal): document.id
        for piece, documents in enumerate(parts)
        for ordinal, document in enumerate(documents)
    }
    assert len(examples) == min(list(found.values()).count(reason), dropped.EXAMPLES)
    for piece, ordinal, kept_piece, kept_ordinal in examples:
        assert found[ids[piece, ordinal]] == reason
        assert found.get(ids[kept_piece, kept_ordinal]) in (None, "near_duplicate")
        assert reason == "duplicate" or ids[kept_piece, kept_ordinal] not in found
