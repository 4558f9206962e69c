"""The sections of a corpus configuration: dataclasses that say what in them can't work.

The text under a field is its help on the command line. `problems` of a section names keys with the
`prefix` under which the section stands in the whole configuration (config.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.ranges import LARGEST_SEED, below_minimum, no_fraction, no_limit, not_finite

MIN_SEQ_LEN = 3  # cls, one token, sep


@dataclass(kw_only=True)
class Source:
    """Where documents come from."""

    kind: Literal[
        "text",
        "jsonl",
        "parquet",
        "huggingface",
        "mediawiki",
        "wikiextractor",
        "wet",
        "fasta",
        "python-docs",
    ]
    """Reader: text files or JSON lines (plain, gzip, bzip2, zstd or xz), Parquet, a data set of
    Hugging Face's `datasets`, MediaWiki XML dumps (.xml.bz2; one with its
    `…-multistream-index.txt.bz2` beside it is read in parallel), what WikiExtractor makes of them,
    Common Crawl's texts (.warc.wet.gz), FASTA sequences, or the docstrings of every installed
    Python library."""
    name: str = ""
    """Prefix of the document ids and the name in counts; the kind when empty. The documents of
    python-docs are counted under their library instead."""
    paths: list[str] = field(default_factory=list)
    """Files, folders, glob patterns, or URLs of one of these; names or folders for huggingface."""
    weight: float = 1.0
    """How often each training document is seen: 2 is every one twice, 0.3 a sample of them."""
    bad_files: Literal["stop", "skip"] = "stop"
    """A file that is cut off or not of its kind stops the run, or is read up to the damage."""
    encoding: str = "utf-8"
    """text, jsonl, wikiextractor, fasta: how text is encoded where no byte order mark says it."""
    documents: Literal["file", "line", "blank-lines"] = "file"
    """text: what one document is (a file, a line, a block between blank lines)."""
    text_key: str = "text"
    """jsonl, parquet, huggingface: key of the text, with dots where it is nested: meta.text."""
    id_key: str = "id"
    """jsonl, parquet, huggingface: key of the document's id; its number where it has none."""
    subset: str | None = None
    """huggingface: configuration of the data set."""
    split: str = "train"
    """huggingface: split of the data set."""
    title: bool = True
    """mediawiki, wikiextractor: an article begins with its title."""
    min_docstring_characters: int = 200
    """python-docs: shorter docstrings are not read at all."""
    markup: Literal["plain", "docstring"] = "plain"
    """docstring: dedent, drop doctests, code blocks, rulers and directives, keep the prose."""

    @property
    def label(self) -> str:
        """Name of the source in ids and counts."""
        return self.name or self.kind

    def problems(self, prefix: str) -> Iterator[str]:
        """Paths that don't go with the kind, an unknown encoding, and a weight of nothing."""
        if self.kind != "python-docs" and not self.paths:
            yield f"{prefix}paths: empty, and kind {self.kind} reads files; list some"
        if self.kind == "python-docs" and self.paths:
            yield f"{prefix}paths: python-docs finds its files itself; remove the paths"
        try:
            "x".encode(self.encoding)
        except (LookupError, ValueError):  # not known; or no encoding of text: hex, undefined, …
            yield (
                f"{prefix}encoding: {self.encoding!r} is none of text that Python knows; "
                "utf-8, cp1252, utf-16-le, …"
            )
        if not 0 < self.weight < math.inf:
            yield f"{prefix}weight: {self.weight}, must be over 0 and finite; or remove the source"
        yield from below_minimum(self, prefix, min_docstring_characters=0)


@dataclass(kw_only=True)
class Repetition:
    """Shares above which a text repeats itself too much (Rae et al. 2021, table A1)."""

    max_duplicate_lines: float = 0.3
    """Share of the lines that occur earlier in the text."""
    max_top_ngram: dict[int, float] = field(default_factory=lambda: {2: 0.2, 3: 0.18, 4: 0.16})
    """Share of the words in the most frequent n-gram, by n."""
    max_duplicate_ngrams: dict[int, float] = field(default_factory=lambda: {5: 0.15, 10: 0.1})
    """Share of the words in n-grams that occur earlier in the text, by n."""

    def problems(self, prefix: str) -> Iterator[str]:
        """Limits that are no shares, and n-grams of no words."""
        yield from no_limit(self.max_duplicate_lines, f"{prefix}max_duplicate_lines")
        for key in ("max_top_ngram", "max_duplicate_ngrams"):
            for n, share in getattr(self, key).items():
                yield from no_limit(share, f"{prefix}{key}.{n}")
                if n < 1:
                    yield f"{prefix}{key}.{n}: an n-gram of {n} words, must be of at least 1"


@dataclass(kw_only=True)
class Cleaning:
    """Which texts are kept, after Unicode NFC and white-space normalisation."""

    repair_unicode: bool = True
    """Fix text that was decoded with the wrong encoding ("cafÃ©"), with ftfy."""
    boilerplate: bool = False
    """Remove Project Gutenberg's licence, and lines about cookies, privacy, JavaScript, …."""
    min_characters: int = 100
    """Shorter texts are dropped."""
    max_characters: int = 1_000_000
    """Longer texts are cut into parts of at most this length, at the end of a paragraph if one is
    near; each part is a document, and all are in one split."""
    min_alphabetic: float = 0.6
    """Least share of letters among the characters that are not white space."""
    repetition: Repetition | None = None
    """Drop texts that repeat themselves; {} for the usual limits."""
    languages: list[str] = field(default_factory=list)
    """Keep texts in these languages only (ISO 639-1: en, de, …); all when empty."""
    min_language_score: float = 0.5
    """Least probability of the language."""
    lines: Literal["keep", "join"] = "keep"
    """join: one line per paragraph, for books that are broken into lines of some 70 characters."""
    filters: dict[str, Any] = field(default_factory=dict)
    """Further filters, `NAME: {SETTING: VALUE}`: NAME is a module of pipeline/cleaning/filters, or
    any other, with dots: my.module."""

    def problems(self, prefix: str) -> Iterator[str]:
        """Limits that no text can meet, languages that none has, and filters that there aren't."""
        from pipeline.cleaning import filters  # they are configured by this class
        from pipeline.cleaning.languages import LANGUAGES, meant

        minimums = {"min_characters": 1, "max_characters": self.min_characters}
        yield from below_minimum(self, prefix, **minimums)
        yield from no_fraction(self, prefix, "min_alphabetic", "min_language_score")
        if self.repetition:
            yield from self.repetition.problems(f"{prefix}repetition.")
        for code in self.languages:
            if code not in LANGUAGES:
                yield f"{prefix}languages: {code!r} is none that lid.176 tells; {meant(code)}"
        yield from not_finite(self.filters, f"{prefix}filters")
        yield from filters.problems(self, prefix)


@dataclass(kw_only=True)
class NearDuplicates:
    """MinHash-LSH: of texts with much the same word n-grams, the longest is kept."""

    threshold: float = 0.8
    """Least estimated Jaccard similarity of two texts' sets of n-grams."""
    ngram: int = 5
    """Words in an n-gram."""
    bands: int = 20
    """Bands of the signature; two texts are compared when one band of them is equal."""
    rows: int = 6
    """Hashes in a band. A pair of similarity s is compared with probability 1 − (1 − s^rows)^bands:
    here 0.998 at 0.8, 0.6 at 0.6."""
    seed: int = 0
    """Chooses the hash functions."""

    def problems(self, prefix: str) -> Iterator[str]:
        """A signature without hashes, and a threshold that is no similarity."""
        yield from below_minimum(self, prefix, ngram=1, bands=1, rows=1)
        yield from below_minimum(self, prefix, largest=LARGEST_SEED, seed=0)
        yield from no_fraction(self, prefix, "threshold")


@dataclass(kw_only=True)
class Decontamination:
    """Drop documents that hold sentences of evaluation sets."""

    paths: list[str]
    """TSV files or glob patterns in GLUE's layout; the folder's name is the task's."""
    ngram: int = 4
    """Words in an n-gram."""
    min_words: int = 13
    """Shorter sentences are not looked for: anybody may have written them."""
    overlap: float = 0.5
    """Share of a sentence's n-grams that must occur close together in a document."""

    def problems(self, prefix: str) -> Iterator[str]:
        """Sentences too short for an n-gram, and an overlap that is no share."""
        yield from below_minimum(self, prefix, ngram=1, min_words=self.ngram)
        yield from no_fraction(self, prefix, "overlap")


@dataclass(kw_only=True)
class Split:
    """Shares of the documents, decided by the hash of the document id."""

    valid: float = 0.005
    """Share for validation."""
    tasks: float = 0.0
    """Share set aside for the demo tasks; in neither train nor valid."""

    def problems(self, prefix: str) -> Iterator[str]:
        """Shares that leave a split empty."""
        yield from no_fraction(self, prefix, "valid", "tasks")
        if self.valid <= 0:
            yield f"{prefix}valid: {self.valid}, but a validation shard is always made; try 0.005"
        if self.valid + self.tasks >= 1:
            yield f"{prefix}tasks: {self.tasks}, and valid {self.valid}, leave nothing for train"


@dataclass(kw_only=True)
class Tokenizer:
    """A tokenizer: trained, with RoBERTa's special tokens at RoBERTa's ids, or a finished one."""

    path: str | None = None
    """Folder or Hub name of a finished tokenizer to use as it is, ids and settings included. One is
    trained on the corpus when empty."""
    kind: Literal["bpe", "wordpiece", "characters", "kmers"] = "bpe"
    """What is trained: RoBERTa's byte-level BPE, BERT's WordPiece, or an alphabet: a token for each
    character, or for each `k` of them."""
    k: int = 6
    """kmers: letters in a token. Tokens don't overlap; what they can't cover is single letters."""
    lowercase: bool = False
    """all but bpe: lower case; for wordpiece also without accents, as bert-base-uncased."""
    vocab_size: int = 50_265
    """Number of tokens, special tokens included; alphabets are mostly smaller."""
    sample_bytes: int = 100_000_000
    """UTF-8 bytes of training text that the tokenizer is trained on."""
    seed: int = 0
    """Chooses the sample."""

    def problems(self, prefix: str) -> Iterator[str]:
        """A vocabulary or a sample that is too small, and lower case for byte-level BPE."""
        special_tokens = 5
        smallest = special_tokens + (1 if self.kind in ("characters", "kmers") else 256)
        yield from below_minimum(self, prefix, vocab_size=smallest, sample_bytes=1, k=1)
        yield from below_minimum(self, prefix, largest=LARGEST_SEED, seed=0)
        if self.lowercase and self.kind == "bpe":
            yield f"{prefix}lowercase: not for kind bpe; byte-level BPE keeps case"


@dataclass(kw_only=True)
class Packing:
    """How documents become sequences (Liu et al. 2019, §4.2)."""

    mode: Literal["full-sentences", "doc-sentences"] = "full-sentences"
    """Sequences cross the ends of documents, or never do."""
    whole_sentences: bool = False
    """Sequences begin at a sentence; what the one before cut off is repeated (and counted)."""
    more_seq_lens: list[int] = field(default_factory=list)
    """The same documents in sequences of other lengths, too: each a data set, OUTPUT/seq-LENGTH."""

    def problems(self, prefix: str) -> Iterator[str]:
        """Lengths without a position for text, or given twice."""
        for length in self.more_seq_lens:
            if length < MIN_SEQ_LEN or self.more_seq_lens.count(length) > 1:
                yield (
                    f"{prefix}more_seq_lens: {length}, must be at least {MIN_SEQ_LEN} and no "
                    "length given twice"
                )


@dataclass(kw_only=True)
class Shards:
    """How the sequences are laid out in tar files."""

    train: int | None = None
    """Number of training tars; default: one for 134 million tokens, or up to 8 smaller ones."""
    valid: int = 1
    """Number of validation tars."""
    block_sequences: int = 1024
    """Sequences in one tar member."""

    def problems(self, prefix: str) -> Iterator[str]:
        """Shards or blocks of nothing."""
        yield from below_minimum(self, prefix, train=1, valid=1, block_sequences=1)


@dataclass(kw_only=True)
class Tasks:
    """Two demo tasks in GLUE layout, from the documents of the `tasks` split."""

    libraries: int = 8
    """Classes of the `library` task: the libraries with most documents."""
    library_train: int = 2500
    """Training examples of `library`."""
    library_dev: int = 1000
    """Dev examples of `library`; test has as many."""
    same_docstring_libraries: int = 4
    """Libraries whose sentences are paired; with more the task takes more sequences to learn."""
    same_docstring_train: int = 4000
    """Training examples of `same_docstring`."""
    same_docstring_dev: int = 1000
    """Dev examples of `same_docstring`; test has as many."""
    max_characters: int = 300
    """Length of a sentence, at most."""

    def problems(self, prefix: str) -> Iterator[str]:
        """Fewer examples than classes, and sentences too short to hold any."""
        yield from below_minimum(
            self,
            prefix,
            libraries=2,
            library_train=self.libraries,
            library_dev=self.libraries,
            same_docstring_libraries=3,
            same_docstring_train=2,
            same_docstring_dev=2,
            max_characters=50,
        )
