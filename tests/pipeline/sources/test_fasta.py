import gzip
import random
from pathlib import Path

import pytest

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import Item, plan, read
from pipeline.sources.records import Document, Rejected


def _read(path: Path, chunk_bytes: int = 10**6) -> list[Item]:
    source = Source(kind="fasta", name="p", paths=[str(path)])
    return [i for c in plan([source], chunk_bytes) for file in c.files for i in read(source, file)]


def _wrapped(sequence: str, width: int) -> str:
    return "".join(sequence[i : i + width] + "\n" for i in range(0, len(sequence), width))


def test_records_are_sequences_without_line_breaks_in_parts_too(tmp_path: Path) -> None:
    rng = random.Random(0)
    sequences = ["".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=rng.randrange(1, 400)))
                 for _ in range(200)]  # fmt: skip
    records = [f">sp|P{i:05} protein {i} > 3\n{_wrapped(s, 60)}" for i, s in enumerate(sequences)]
    (tmp_path / "a.fasta").write_text("".join(records))
    for chunk_bytes in (100, 3000, 10**6):
        found = _read(tmp_path / "a.fasta", chunk_bytes)
        assert found == [Document(f"p/a.fasta:sp|P{i:05}", s, "p") for i, s in enumerate(sequences)]
    (tmp_path / "b.fa.gz").write_bytes(gzip.compress("".join(records).encode()))
    assert [item.text for item in _read(tmp_path / "b.fa.gz", 100)] == sequences  # type: ignore[union-attr]


def test_odd_records(tmp_path: Path) -> None:
    text = "; comment\r\n>a\r\nAC GT\r\nac\r\n\r\n>b\r\n>\r\nNNN*\r\n>a\r\nTT\r\n>last\r\nG"
    content = text.encode() + b"\n>bad\nA\xff\nC\n>good\nC\n"
    (tmp_path / "a.fa").write_bytes(content)
    path = tmp_path / "a.fa"
    assert _read(path) == [
        Document("p/a.fa:a", "ACGTac", "p"),
        Rejected(f"{path}:6", "no sequence behind '>b'"),
        Document("p/a.fa:7", "NNN*", "p"),
        Document("p/a.fa:a:9", "TT", "p"),
        Document("p/a.fa:last", "G", "p"),
        Rejected(
            f"{path}:14",
            f"not utf-8: byte {content.index(255) + 1} is 0xff; "
            "set `encoding` of the source if all lines have another",
        ),
        Document("p/a.fa:good", "C", "p"),
    ]


def test_what_is_no_fasta_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("@read1\nACGT\n+\n!!!!\n")
    with pytest.raises(BadFile, match="begins with FASTQ"):
        _read(tmp_path / "a")
    (tmp_path / "a").write_text("A sentence.\n")
    with pytest.raises(BadFile, match=r"begins with 'A sentence\.', expected a header of FASTA"):
        _read(tmp_path / "a")
