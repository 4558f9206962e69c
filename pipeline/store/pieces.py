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
from typing import Any

import numpy as np
import zstandard

from pipeline.errors import PipelineError
from pipeline.sources.records import Document
from pipeline.store import work
from pipeline.store.folder import Folder


def documents_name(piece: str) -> str:
    """File of a piece's cleaned documents."""
    return f"{work.WORK}/documents/{piece}.jsonl.zst"


def array_name(piece: str, kind: str) -> str:
    """File of one array beside the documents: `keys`, `facts`, `signatures`."""
    return f"{work.WORK}/documents/{piece}.{kind}.npy"


def chunk_name(chunk: int) -> str:
    """File that certifies a chunk as read and cleaned."""
    return f"{work.WORK}/chunks/{chunk:05}.json"


def rejected_name(chunk: int) -> str:
    """File of a chunk's unreadable records; absent when there are none."""
    return f"{work.WORK}/chunks/{chunk:05}.rejected.jsonl"


def dropped_name(piece: str) -> str:
    """File of the ordinals that deduplication drops from a piece."""
    return f"{work.WORK}/dropped/{piece}.json"


def write_piece(
    folder: Folder, piece: str, documents: list[Document], arrays: dict[str, np.ndarray]
) -> None:
    """Write documents and arrays of a piece, and a receipt: documents, records, text_bytes."""
    for kind, array in arrays.items():
        content = io.BytesIO()
        np.save(content, array)
        work.write_certified(folder, array_name(piece, kind), content.getvalue())
    text = "".join(json.dumps(d._asdict(), ensure_ascii=False) + "\n" for d in documents).encode()
    work.write_certified(
        folder,
        documents_name(piece),
        zstandard.compress(text, 3),
        documents=len(documents),
        records=len(arrays["keys"]),
        text_bytes=len(text),
    )


def read_chunk(folder: Folder, chunk: int, check: bool = True) -> dict[str, Any] | None:
    """What was found in a chunk; None when it isn't done, or (`check`) a piece isn't whole."""
    found = work.load_json(folder, chunk_name(chunk))
    if found and check:
        for piece in found["pieces"]:
            files = [documents_name(piece)]
            files += [array_name(piece, kind) for kind in found["arrays"]]
            if not all(work.read_receipt(folder, name) for name in files):
                return None
    return found


def pieces(folder: Folder, chunks: int) -> list[str]:
    """The pieces of all chunks, in order. Raises PipelineError when a chunk isn't done."""
    names: list[str] = []
    for chunk in range(chunks):
        found = read_chunk(folder, chunk, check=False)
        if found is None:
            raise PipelineError(
                f"{folder.path(chunk_name(chunk))}: not written; the runner lost it, "
                "use another --runner"
            )
        names += found["pieces"]
    return names


def piece_receipt(folder: Folder, piece: str) -> dict[str, Any]:
    """The receipt of `write_piece`."""
    receipt = work.read_receipt(folder, documents_name(piece), check=False)
    assert receipt, f"{piece} is named by its chunk, but has no receipt"
    return receipt


def read_documents(folder: Folder, piece: str) -> Iterator[Document]:
    """All cleaned documents of a piece, duplicates included, in order of their ordinals."""
    for line in _lines(folder, piece):
        yield Document(**json.loads(line))


def read_document(folder: Folder, piece: str, ordinal: int) -> Document:
    """One cleaned document."""
    return Document(**json.loads(_lines(folder, piece)[ordinal]))


def _lines(folder: Folder, piece: str) -> list[bytes]:
    text = zstandard.decompress(folder.read(documents_name(piece)))
    return text.split(b"\n")[:-1]


def dropped(folder: Folder, piece: str) -> dict[int, str]:
    """Reason by ordinal of the documents of a piece that deduplication dropped."""
    name = dropped_name(piece)
    reasons = work.load_json(folder, name)
    if reasons is None:
        raise PipelineError(f"{folder.path(name)}: missing; run the same command again")
    return {ordinal: reason for reason, ordinals in reasons.items() for ordinal in ordinals}


def kept_documents(folder: Folder, piece: str) -> Iterator[Document]:
    """The cleaned documents of a piece that deduplication kept."""
    drops = dropped(folder, piece)
    for ordinal, document in enumerate(read_documents(folder, piece)):
        if ordinal not in drops:
            yield document
