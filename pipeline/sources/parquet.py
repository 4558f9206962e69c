"""Parquet files, by groups of row groups; only the columns of text and id are read."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import files
from pipeline.sources.records import Document, InputFile, Rejected


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """Parts of about `chunk_bytes` compressed bytes; a file that can't be opened is one part."""
    parts: list[InputFile] = []
    for file in files.matching(source):
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
    try:
        with files.open_raw(file.path) as raw:
            table = pq.ParquetFile(raw)
            columns = table.schema_arrow.names
            if source.text_key not in columns:
                raise BadFile(
                    f"{file.path}: no column {source.text_key!r} (`text_key`); "
                    f"it has {', '.join(columns)}"
                )
            wanted = [c for c in (source.text_key, source.id_key) if c in columns]
            stop = table.num_row_groups if file.stop is None else file.stop
            row = sum(table.metadata.row_group(i).num_rows for i in range(file.start))
            for batch in table.iter_batches(1024, range(file.start, stop), wanted):
                for record in batch.to_pylist():
                    text, key = record[source.text_key], record.get(source.id_key, row)
                    if isinstance(text, str):
                        yield Document(f"{file.name}:{key}", text, source.label)
                    else:
                        found = type(text).__name__
                        yield Rejected(f"{file.path}:{row}", f"{source.text_key!r} is {found}")
                    row += 1
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise BadFile(f"{file.path}: not a whole Parquet file ({error}); fetch it again") from error
