"""Some of what was dropped, by reason, for a person to judge the rules by: `dropped.json`."""

from __future__ import annotations

from typing import Any

from pipeline.cleaning.documents import EXAMPLES, EXCERPT
from pipeline.store import work
from pipeline.store.folder import Folder
from pipeline.store.pieces import dropped_name, read_chunk, read_document


def collect(folder: Folder, chunks: int) -> dict[str, list[dict[str, Any]]]:
    """`{reason: [{"id", "text"}]}`; duplicates also say which document was kept, `"kept"`."""
    by_reason: dict[str, list[list[str]]] = {}
    for chunk in range(chunks):
        found = read_chunk(folder, chunk, check=False)
        assert found
        for reason, some in found["examples"].items():
            by_reason[reason] = sorted([*by_reason.get(reason, []), *some])[:EXAMPLES]
    shown: dict[str, list[dict[str, Any]]] = {
        reason: [{"id": name, "text": text} for _, name, text in some]
        for reason, some in sorted(by_reason.items())
    }
    pairs = work.load_json(folder, dropped_name("examples")) or {}
    for reason, some in pairs.items():
        shown[reason] = []
        for piece, ordinal, kept_piece, kept_ordinal in some[:EXAMPLES]:
            dropped = read_document(folder, piece, ordinal)
            kept = read_document(folder, kept_piece, kept_ordinal)
            shown[reason].append(
                {"id": dropped.id, "text": dropped.text[:EXCERPT], "kept": kept.id}
            )
    return shown
