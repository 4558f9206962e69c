"""The cleaned documents of a chunk, on disk in pieces of bounded size.

`.work/documents/00012-000.jsonl.zst` holds `{"id", "text", "source"}` a line, in the order of the
input; a document's ordinal is its line. Beside it `….hashes.npy` holds what finds equal texts.
`.work/chunks/00012.json`, written last, names the pieces of a chunk and holds its counts and
examples of what was dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import zstandard

from pipeline.errors import PipelineError
from pipeline.sources.records import Document
from pipeline.store import work
from pipeline.store.folder import Folder


def piece_name(chunk: int, number: int) -> str:
    """Of a piece's files."""
    return f"{chunk:05}-{number:03}"


def documents_name(piece: str) -> str:
    """File of a piece's cleaned documents."""
    return f"{work.WORK}/documents/{piece}.jsonl.zst"


def hashes_name(piece: str) -> str:
    """File of the hashes of a piece's documents."""
    return f"{work.WORK}/documents/{piece}.hashes.npy"


def chunk_name(chunk: int) -> str:
    """File that certifies a chunk as read and cleaned."""
    return f"{work.WORK}/chunks/{chunk:05}.json"


def rejected_name(chunk: int) -> str:
    """File of a chunk's unreadable records; absent when there are none."""
    return f"{work.WORK}/chunks/{chunk:05}.rejected.jsonl"


def write_piece(folder: Folder, piece: str, documents: list[Document], hashes: np.ndarray) -> None:
    """Write a piece's documents and their hashes, and a receipt: documents, text_bytes."""
    work.write_certified(folder, hashes_name(piece), work.array_bytes(hashes))
    text = "".join(json.dumps(d._asdict(), ensure_ascii=False) + "\n" for d in documents).encode()
    work.write_certified(
        folder,
        documents_name(piece),
        zstandard.compress(text, 3),
        documents=len(documents),
        text_bytes=len(text),
    )


def read_chunk(folder: Folder, chunk: int, check: bool = True) -> dict[str, Any] | None:
    """What was found in a chunk; None when it isn't done, or (`check`) a piece isn't whole."""
    found = work.load_json(folder, chunk_name(chunk))
    if found and check:
        for piece in found["pieces"]:
            paths = [documents_name(piece), hashes_name(piece)]
            if not all(work.read_receipt(folder, path) for path in paths):
                return None
    return found


def read_done(folder: Folder, chunk: int) -> dict[str, Any]:
    """What was found in a chunk. Raises PipelineError when it isn't done."""
    found = read_chunk(folder, chunk, check=False)
    if found is None:
        raise PipelineError(
            f"{chunk_name(chunk)}: not written; the runner lost it, use another --runner"
        )
    return found


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
