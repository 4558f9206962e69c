"""Data sets of Hugging Face's `datasets`: a name on the Hub, a folder of data files, or one that
`save_to_disk` wrote; always streamed, a part per shard of the data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Source
from pipeline.credentials import public
from pipeline.errors import BadFile, PipelineError
from pipeline.sources.naming import Ids, file_names
from pipeline.sources.records import Document, InputFile, Rejected, as_document, column_of

if TYPE_CHECKING:
    from datasets import IterableDataset

_PARTS = 64  # of a data set on disk, which can be cut anywhere


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """A part for each shard, so that each is a chunk of its own."""
    paths = list(dict.fromkeys(source.paths))
    names = file_names(source.label, [public(path) for path in paths])
    return [
        InputFile(path, names[public(path)], chunk_bytes, -1, part, part + 1)
        for path in paths
        for part in range(_load(source, path).num_shards)
    ]


def read(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    """The records of one shard, in its order; ids are the data set's own, or shard and number.

    Raises BadFile when the shard can't be read to its end.
    """
    data = _load(source, file.path)
    if data.column_names is not None and not column_of(source.text_key, data.column_names):
        raise BadFile(
            f"{file.path}: no column {source.text_key!r} (`text_key`); "
            f"it has {', '.join(data.column_names)}"
        )
    ids = Ids(file.name)
    records = iter(data.shard(data.num_shards, file.start))
    number = 0
    while True:
        place = f":{file.start}-{number}"
        try:
            record = next(records)
        except StopIteration:
            return
        except Exception as error:  # datasets raises its own, the Hub's, fsspec's and pyarrow's
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise BadFile(f"{file.path}{place}: can't be read from here on ({text})") from error
        yield as_document(source, ids, record, place=place, where=file.path + place)
        number += 1


def _load(source: Source, path: str) -> IterableDataset:
    import datasets

    try:
        if (Path(path) / "state.json").exists() or (Path(path) / "dataset_dict.json").exists():
            stored = datasets.load_from_disk(path)
            table = stored[source.split] if isinstance(stored, datasets.DatasetDict) else stored
            return table.to_iterable_dataset(min(_PARTS, max(len(table), 1)))
        return datasets.load_dataset(path, source.subset, split=source.split, streaming=True)
    except Exception as error:  # datasets raises its own, the Hub's, fsspec's and pyarrow's
        raise PipelineError(
            f"sources ({source.label}): the data set {path!r}, subset {source.subset!r}, "
            f"split {source.split!r} can't be loaded: {error}"
        ) from error
