"""Some of what was dropped, by reason, for a person to judge the rules by: `dropped.json`."""

from __future__ import annotations

from typing import Any

from pipeline.cleaning.documents import EXAMPLES, EXCERPT
from pipeline.config import Config
from pipeline.store import dropped
from pipeline.store.folder import Folder
from pipeline.store.pieces import read_document, read_done


def collect(folder: Folder, config: Config, chunks: int) -> dict[str, list[dict[str, Any]]]:
    """`{reason: [{"id", "text"}]}`; duplicates also say which document was kept, `"kept"`."""
    by_reason: dict[str, list[list[str]]] = {}
    for chunk in range(chunks):
        found = read_done(folder, chunk)
        for reason, some in found["examples"].items():
            by_reason[reason] = sorted([*by_reason.get(reason, []), *some])[:EXAMPLES]
    shown: dict[str, list[dict[str, Any]]] = {
        reason: [{"id": name, "text": text} for _, name, text in some]
        for reason, some in sorted(by_reason.items())
    }
    for reason in dropped.reasons(config):
        for piece, ordinal, kept_piece, kept_ordinal in dropped.examples(folder, reason)[:EXAMPLES]:
            document = read_document(folder, piece, ordinal)
            kept = read_document(folder, kept_piece, kept_ordinal)
            shown.setdefault(reason, []).append(
                {"id": document.id, "text": document.text[:EXCERPT], "kept": kept.id}
            )
    return shown
