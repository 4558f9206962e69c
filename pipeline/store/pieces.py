"""The cleaned documents of a chunk, on disk in pieces of bounded size.

`.work/documents/00012-000.jsonl.zst` holds `{"id", "text", "source"}` a line, in the order of the
input; a document's ordinal is its line. Beside it `….keys.npy` holds what deduplication compares,
and `….facts.npy` what it chooses by. `.work/chunks/00012.json`, written last, names the pieces of a
chunk and holds its counts and examples of what was dropped; `.work/dropped/00012-000.json` the
ordinals that fell to deduplication, by reason.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from pipeline.errors import PipelineError
from pipeline.sources.records import Document
from pipeline.store import work


def documents_path(folder: Path, piece: str) -> Path:
    """File of a piece's cleaned documents."""
    return folder / work.WORK / "documents" / f"{piece}.jsonl.zst"


def array_path(folder: Path, piece: str, kind: str) -> Path:
    """File of one array beside the documents: `keys`, `facts`, `signatures`."""
    return folder / work.WORK / "documents" / f"{piece}.{kind}.npy"


def chunk_path(folder: Path, chunk: int) -> Path:
    """File that certifies a chunk as read and cleaned."""
    return folder / work.WORK / "chunks" / f"{chunk:05}.json"


def rejected_path(folder: Path, chunk: int) -> Path:
    """File of a chunk's unreadable records; absent when there are none."""
    return folder / work.WORK / "chunks" / f"{chunk:05}.rejected.jsonl"


def dropped_path(folder: Path, piece: str) -> Path:
    """File of the ordinals that deduplication drops from a piece."""
    return folder / work.WORK / "dropped" / f"{piece}.json"


def write_piece(
    folder: Path, piece: str, documents: list[Document], arrays: dict[str, np.ndarray]
) -> None:
    """Write documents and arrays of a piece, and a receipt: documents, records, text_bytes."""
    for kind, array in arrays.items():
        content = io.BytesIO()
        np.save(content, array)
        work.write_certified(array_path(folder, piece, kind), content.getvalue())
    text = "".join(json.dumps(d._asdict(), ensure_ascii=False) + "\n" for d in documents).encode()
    work.write_certified(
        documents_path(folder, piece),
        zstandard.compress(text, 3),
        documents=len(documents),
        records=len(arrays["keys"]),
        text_bytes=len(text),
    )


def read_chunk(folder: Path, chunk: int, check: bool = True) -> dict[str, Any] | None:
    """What was found in a chunk; None when it isn't done, or (`check`) a piece isn't whole."""
    found = work.load_json(chunk_path(folder, chunk))
    if found and check:
        for piece in found["pieces"]:
            paths = [documents_path(folder, piece)]
            paths += [array_path(folder, piece, kind) for kind in found["arrays"]]
            if not all(work.read_receipt(path) for path in paths):
                return None
    return found


def pieces(folder: Path, chunks: int) -> list[str]:
    """The pieces of all chunks, in order. Raises PipelineError when a chunk isn't done."""
    names: list[str] = []
    for chunk in range(chunks):
        found = read_chunk(folder, chunk, check=False)
        if found is None:
            raise PipelineError(
                f"{chunk_path(folder, chunk)}: not written; the runner lost it, "
                "use another --runner"
            )
        names += found["pieces"]
    return names


def piece_receipt(folder: Path, piece: str) -> dict[str, Any]:
    """The receipt of `write_piece`."""
    receipt = work.read_receipt(documents_path(folder, piece), check=False)
    assert receipt, f"{piece} is named by its chunk, but has no receipt"
    return receipt


def read_documents(folder: Path, piece: str) -> Iterator[Document]:
    """All cleaned documents of a piece, duplicates included, in order of their ordinals."""
    for line in _lines(folder, piece):
        yield Document(**json.loads(line))


def read_document(folder: Path, piece: str, ordinal: int) -> Document:
    """One cleaned document."""
    return Document(**json.loads(_lines(folder, piece)[ordinal]))


def _lines(folder: Path, piece: str) -> list[bytes]:
    text = zstandard.decompress(documents_path(folder, piece).read_bytes())
    return text.split(b"\n")[:-1]


def dropped(folder: Path, piece: str) -> dict[int, str]:
    """Reason by ordinal of the documents of a piece that deduplication dropped."""
    path = dropped_path(folder, piece)
    reasons = work.load_json(path)
    if reasons is None:
        raise PipelineError(f"{path}: missing; run the same command again")
    return {ordinal: reason for reason, ordinals in reasons.items() for ordinal in ordinals}


def kept_documents(folder: Path, piece: str) -> Iterator[Document]:
    """The cleaned documents of a piece that deduplication kept."""
    gone = dropped(folder, piece)
    for ordinal, document in enumerate(read_documents(folder, piece)):
        if ordinal not in gone:
            yield document
