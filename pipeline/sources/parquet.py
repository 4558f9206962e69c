"""Parquet files, by groups of row groups; only the columns of text and id are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Source
from pipeline.errors import BadFile, PipelineError
from pipeline.sources import content, files
from pipeline.sources.naming import Ids
from pipeline.sources.records import Document, InputFile, Rejected, as_document, column_of

_SUFFIXES = (".parquet", ".pq")
_MAGIC = (b"PAR1", b"PARE")  # the second one's footer is encrypted


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """Parts of about `chunk_bytes` compressed bytes; a file that can't be opened is one part."""
    parts: list[InputFile] = []
    for file in files.matching(source, _SUFFIXES):
        if not files.has_ranges(file.path):
            raise PipelineError(
                f"{file.path}: its server sends whole files, and Parquet is read by parts; fetch "
                "it first"
            )
        try:
            with files.open_raw(file.path) as raw:
                metadata = pq.ParquetFile(raw).metadata
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            parts.append(file)  # `read` says what is wrong with it
            continue
        sizes = [_compressed(metadata.row_group(i)) for i in range(metadata.num_row_groups)]
        start = 0
        for stop in range(1, len(sizes) + 1):
            taken = sum(sizes[start:stop])
            if stop == len(sizes) or taken + sizes[stop] > chunk_bytes:
                parts.append(InputFile(file.path, file.name, taken, file.whole, start, stop))
                start = stop
    return parts


def _compressed(group: pq.RowGroupMetaData) -> int:
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


def read(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    """The rows of one part. Raises BadFile when the file is damaged or lacks the text's column."""
    ids = Ids(file.name)
    try:
        with files.open_raw(file.path) as raw:
            table = pq.ParquetFile(raw)
            columns = table.schema_arrow.names
            if not column_of(source.text_key, columns):
                raise BadFile(
                    f"{file.path}: no column {source.text_key!r} (`text_key`); "
                    f"it has {', '.join(columns)}"
                )
            keys = (source.text_key, source.id_key)
            wanted = [name for key in keys if (name := column_of(key, columns))]
            stop = table.num_row_groups if file.stop is None else file.stop
            number = sum(table.metadata.row_group(i).num_rows for i in range(file.start))
            for batch in table.iter_batches(1024, range(file.start, stop), wanted):
                for record in _records(batch):
                    place, where = f":{number}", f"{file.path}:{number}"
                    if isinstance(record, UnicodeDecodeError):
                        yield Rejected(where, f"not UTF-8: {record}")
                    else:
                        yield as_document(source, ids, record, place=place, where=where)
                    number += 1
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise BadFile(f"{file.path}: {_problem(file.path, error)}") from error


def _records(batch: pa.RecordBatch) -> list[dict[str, Any] | UnicodeDecodeError]:
    """The rows; for one with a string that isn't UTF-8 the error."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [error]
        half = batch.num_rows // 2
        return _records(batch.slice(0, half)) + _records(batch.slice(half))


def _problem(path: str, error: Exception) -> str:
    """What is wrong with a file that isn't Parquet, or isn't all of it."""
    head = files.head(path)
    if head.startswith(_MAGIC):
        return f"not a whole Parquet file ({error}); fetch it again"
    problem = None if content.decoder(head) else content.no_text(head, path.rsplit("/", 1)[-1])
    return problem or f"begins with {head[:12]!r}, expected Parquet's b'PAR1'; check `kind`"
