"""What a corpus of 160 GB and one of 10 TB take, on paper, from what was measured on small ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import NearDuplicates
from pipeline.dedup import hash_space
from pipeline.store.catalog import GROUPS

REPORTS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
PUT, GET = 5e-6, 4e-7  # dollars: S3 standard, list price of us-east-1
TOKENS_A_BYTE = 0.21  # docs/benchmarks/pipeline.json, encode: tokens / megabytes
NEAR = NearDuplicates()


@dataclass(frozen=True)
class Corpus:
    """A corpus, and how it is cut."""

    name: str
    text_bytes: float
    documents: float
    chunk_bytes: float
    shards: int

    @property
    def pieces(self) -> float:
        """Pieces of documents."""
        return self.text_bytes / self.chunk_bytes

    @property
    def groups(self) -> float:
        """Groups of pieces."""
        return min(self.pieces, GROUPS)

    @property
    def token_bytes(self) -> float:
        """Of all token ids."""
        return self.text_bytes * TOKENS_A_BYTE * 2


CORPORA = (
    Corpus("160 GB", 160e9, 80e6, 8e6, 256),
    Corpus("10 TB", 10e12, 3.3e9, 64e6, 15_000),
)


class Step(NamedTuple):
    """What a stage takes: hours of all its workers, of the longest one, GB, reads and PUTs."""

    name: str
    hours: float
    longest: float
    gigabytes: float
    reads: float
    puts: float


class Rates(NamedTuple):
    """Measured: CPU seconds a unit, and gigabytes."""

    whole_stage: float  # a byte of text, from reading to tars, without near-duplicates
    sign: float  # a byte of text
    match_texts: float  # a document
    drop_duplicates: float  # a document
    match_signatures: float  # a document that is no duplicate, and so are all below
    list_candidates: float
    pairs: float  # a number, no seconds
    compare: float
    drop_near_duplicates: float
    assign: float
    survivors: float  # share of the documents
    text_gigabytes: float  # of a full part of `match_texts`
    band_gigabytes: float  # of `match_signatures`


def rates(measured: dict[str, Any]) -> Rates:
    """From the largest run of `pipeline_scale`, and the report of `benchmarks.pipeline`."""
    count = max(map(int, measured))
    steps = measured[str(count)]["steps"]
    survivors = count - steps["drop_duplicates"]["found"]
    workers = json.loads((REPORTS / "pipeline.json").read_text())["workers"]
    whole = sorted(workers["seconds"]["pipeline, 1 worker"]["cpu"])[1]
    base = steps["drop_duplicates"]["gib"]  # of a process with the libraries

    def full(step: str, records: float) -> float:
        """Gigabytes of a worker whose part is as large as it may be."""
        part = records / steps[step]["parts"]
        return (base + (steps[step]["gib"] - base) * hash_space.RECORDS / part) * 1.0737

    return Rates(
        whole_stage=whole / workers["megabytes"] / 1e6,
        sign=steps["sign_texts"]["cpu"] / steps["sign_texts"]["found"],
        match_texts=steps["match_texts"]["cpu"] / count,
        match_signatures=steps["match_signatures"]["cpu"] / survivors,
        drop_duplicates=steps["drop_duplicates"]["cpu"] / count,
        list_candidates=steps["list_candidates"]["cpu"] / survivors,
        pairs=steps["list_candidates"]["found"] / survivors,
        compare=steps["compare_signatures"]["cpu"] / survivors,
        drop_near_duplicates=steps["drop_near_duplicates"]["cpu"] / survivors,
        assign=steps["assign_shards"]["cpu"] / survivors,
        survivors=survivors / count,
        text_gigabytes=full("match_texts", count),
        band_gigabytes=full("match_signatures", survivors * NEAR.bands),
    )


def steps(corpus: Corpus, rate: Rates) -> list[Step]:
    """Every stage of a run with near-duplicates."""
    survivors = corpus.documents * rate.survivors
    text_parts = hash_space.parts(int(corpus.documents))
    band_parts = hash_space.parts(int(survivors * NEAR.bands))
    hash_parts = min(band_parts, NEAR.bands * NEAR.rows)
    pairs = rate.pairs * survivors
    group_bytes = corpus.text_bytes / corpus.groups
    shard_bytes = corpus.token_bytes / corpus.shards

    def many(name: str, seconds: float, elements: float, *more: float) -> Step:
        return Step(name, seconds / 3600, seconds / 3600 / elements, *more)

    # a file that is certified is two PUTs: itself and its receipt
    return [
        many(
            "read, clean, tokenize, pack (all that is linear)",
            rate.whole_stage * corpus.text_bytes,
            corpus.pieces,
            max(4 * corpus.chunk_bytes, 4 * group_bytes * TOKENS_A_BYTE * 2, 4 * shard_bytes) / 1e9,
            corpus.pieces * 4 + 3 * corpus.groups * corpus.shards,
            corpus.pieces * 5 + corpus.groups * 4 + corpus.shards * 2,
        ),
        many(
            "match equal texts",
            rate.match_texts * corpus.documents,
            text_parts,
            rate.text_gigabytes,
            2 * text_parts * corpus.pieces,
            text_parts,
        ),
        many(
            "drop duplicates",
            rate.drop_duplicates * corpus.documents,
            1,
            3 * corpus.documents / 1e9,
            text_parts,
            2,
        ),
        many(
            "sign",
            rate.sign * corpus.text_bytes,
            corpus.groups,
            5 * survivors / corpus.groups * 4 * NEAR.bands * NEAR.rows / 1e9,
            corpus.pieces * 2,
            corpus.groups * 6,
        ),
        many(
            "match signatures",
            rate.match_signatures * survivors,
            band_parts,
            rate.band_gigabytes,
            2 * band_parts * corpus.groups,
            band_parts,
        ),
        many(
            "list candidates",
            rate.list_candidates * survivors,
            band_parts,
            rate.band_gigabytes,
            2 * band_parts * band_parts,
            band_parts,
        ),
        many(
            "compare signatures",
            rate.compare * survivors,
            hash_parts,
            (4 * survivors * -(-NEAR.bands * NEAR.rows // hash_parts) + 3 * pairs) / 1e9,
            hash_parts * (corpus.groups + band_parts),
            hash_parts,
        ),
        many(
            "drop near-duplicates",
            rate.drop_near_duplicates * survivors,
            1,
            (6 * survivors + 20 * 0.3 * survivors + 2 * corpus.documents) / 1e9,
            band_parts + hash_parts * pairs / hash_space.RECORDS + 2 * corpus.groups,
            2,
        ),
        many(
            "assign shards",
            rate.assign * survivors,
            1,
            2 * 16 * corpus.groups * corpus.shards / 1e9,
            2 * corpus.groups,
            2,
        ),
    ]


def paper(measured: dict[str, Any]) -> str:
    """The tables in Markdown."""
    rate = rates(measured)
    lines = []
    for corpus in CORPORA:
        lines += [
            f"**{corpus.name}**: {corpus.documents:,.0f} documents, `chunk_bytes` "
            f"{corpus.chunk_bytes:,.0f}: {corpus.pieces:,.0f} pieces, {corpus.groups:,.0f} groups; "
            f"{corpus.shards:,} shards of {corpus.token_bytes / corpus.shards / 1e6:,.0f} MB.",
            "",
            "| stage | core-hours | longest element | GB of its worker | reads | PUTs |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        every = steps(corpus, rate)
        for step in every:
            lines.append(
                f"| {step.name} | {step.hours:,.1f} | {step.longest * 60:,.1f} min | "
                f"{step.gigabytes:,.1f} | {step.reads:.1e} | {step.puts:,.0f} |"
            )
        reads, puts = sum(s.reads for s in every), sum(s.puts for s in every)
        lines += [
            f"| all | {sum(s.hours for s in every):,.0f} | | {max(s.gigabytes for s in every):,.1f}"
            f" | {reads:.1e} (${reads * GET:,.0f}) | {puts:,.0f} (${puts * PUT:,.0f}) |",
            "",
        ]
    return "\n".join(lines)
