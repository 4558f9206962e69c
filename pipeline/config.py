"""The configuration of a corpus: dataclasses, their checks, and the hash that names a run.

The text under a field is its help on the command line. What decides the bytes of the shards
is in here and nothing else, so `sha256(config)` answers "is this folder the one I asked for?";
runner, workers and the output folder are no part of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, cast

from pipeline.checks import problems
from pipeline.errors import PipelineError


@dataclass(kw_only=True)
class Source:
    """Where documents come from."""

    kind: Literal["text", "jsonl", "parquet", "huggingface", "mediawiki", "python-docs"]
    """Reader: text files or JSON lines (plain, .gz, .bz2, .zst), Parquet, a data set of Hugging
    Face's `datasets`, MediaWiki XML dumps (.xml.bz2; one with its `…-multistream-index.txt.bz2`
    beside it is read in parallel), or the docstrings of every installed Python library."""
    name: str = ""
    """Prefix of the document ids and the name in counts; the kind when empty. The documents of
    python-docs are counted under their library instead."""
    paths: list[str] = field(default_factory=list)
    """Files, glob patterns, or URLs of a Beam filesystem; names or folders for huggingface."""
    weight: float = 1.0
    """How often each training document is seen: 2 is every one twice, 0.3 a sample of them."""
    bad_files: Literal["stop", "skip"] = "stop"
    """A file that is cut off or not of its kind stops the run, or is read up to the damage."""
    documents: Literal["file", "line", "blank-lines"] = "file"
    """text: what one document is (a file, a line, a block between blank lines)."""
    text_key: str = "text"
    """jsonl, parquet, huggingface: key of the text."""
    id_key: str = "id"
    """jsonl, parquet, huggingface: key of the document's id; its number where it has none."""
    subset: str | None = None
    """huggingface: configuration of the data set."""
    split: str = "train"
    """huggingface: split of the data set."""
    title: bool = True
    """mediawiki: an article begins with its title."""
    min_docstring_characters: int = 200
    """python-docs: shorter docstrings are not read at all."""
    markup: Literal["plain", "docstring"] = "plain"
    """docstring: dedent, drop doctests, code blocks, rulers and directives, keep the prose."""

    @property
    def label(self) -> str:
        """Name of the source in ids and counts."""
        return self.name or self.kind


@dataclass(kw_only=True)
class Repetition:
    """Shares above which a text repeats itself too much (Rae et al. 2021, table A1)."""

    max_duplicate_lines: float = 0.3
    """Share of the lines that have stood before."""
    max_top_ngram: dict[int, float] = field(default_factory=lambda: {2: 0.2, 3: 0.18, 4: 0.16})
    """Share of the words in the most frequent n-gram, by n."""
    max_duplicate_ngrams: dict[int, float] = field(default_factory=lambda: {5: 0.15, 10: 0.1})
    """Share of the words in n-grams that have stood before, by n."""


@dataclass(kw_only=True)
class Cleaning:
    """Which texts are kept, after Unicode NFC and white-space normalisation."""

    repair_unicode: bool = True
    """Mend text that was decoded with the wrong encoding ("cafÃ©"), with ftfy."""
    boilerplate: bool = False
    """Remove Project Gutenberg's licence, and lines about cookies, privacy, JavaScript, …."""
    min_characters: int = 100
    """Shorter texts are dropped."""
    max_characters: int = 1_000_000
    """Longer texts are dropped."""
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
    """Share of a sentence's n-grams that must stand close together in a document."""


@dataclass(kw_only=True)
class Split:
    """Shares of the documents, decided by the hash of the document id."""

    valid: float = 0.005
    """Share for validation."""
    tasks: float = 0.0
    """Share set aside for the demo tasks; in neither train nor valid."""


@dataclass(kw_only=True)
class Tokenizer:
    """A tokenizer with RoBERTa's special tokens at RoBERTa's ids."""

    path: str | None = None
    """Folder or Hub name of a finished tokenizer to use; its special tokens are put at RoBERTa's
    ids where they aren't. One is trained on the corpus when empty."""
    kind: Literal["bpe", "wordpiece"] = "bpe"
    """What is trained: RoBERTa's byte-level BPE, or BERT's WordPiece."""
    lowercase: bool = False
    """wordpiece: lower case, without accents, as bert-base-uncased."""
    vocab_size: int = 50_265
    """Number of tokens, special tokens included."""
    sample_bytes: int = 100_000_000
    """UTF-8 bytes of training text that the tokenizer is trained on."""
    seed: int = 0
    """Chooses the sample."""


@dataclass(kw_only=True)
class Packing:
    """How documents become rows (Liu et al. 2019, §4.2)."""

    mode: Literal["full-sentences", "doc-sentences"] = "full-sentences"
    """Rows reach over the ends of documents, or never do."""
    whole_sentences: bool = False
    """Rows begin at a sentence; what the row before cut off is repeated (and counted)."""
    more_seq_lens: list[int] = field(default_factory=list)
    """The same documents in rows of other lengths too, each a data set in OUTPUT/seq-LENGTH."""


@dataclass(kw_only=True)
class Shards:
    """How the rows are laid out in tar files."""

    train: int = 64
    """Number of training tars."""
    valid: int = 1
    """Number of validation tars."""
    block_sequences: int = 1024
    """Rows in one tar member."""


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
    """Libraries whose sentences are paired; with more the task takes more rows to learn."""
    same_docstring_train: int = 4000
    """Training examples of `same_docstring`."""
    same_docstring_dev: int = 1000
    """Dev examples of `same_docstring`; test has as many."""
    max_characters: int = 300
    """Length of a sentence, at most."""


@dataclass(kw_only=True)
class Config:
    """Corpora to tar shards: read, clean, deduplicate, split, tokenize, pack, write."""

    output: str
    """Folder for shards, tokenizer and manifest."""
    sources: list[Source]
    """What to read."""
    seq_len: int = 128
    """Tokens in a row, `<s>` and the last `</s>` included."""
    chunk_bytes: int = 8_000_000
    """Input files are worked on in groups of about this many bytes, and documents kept in pieces
    of about this much text: a worker's memory grows with it, not with the corpus."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    """Which texts are kept."""
    near_duplicates: NearDuplicates | None = None
    """Also drop near-duplicates; {} for the usual settings. Equal texts always go."""
    decontamination: Decontamination | None = None
    """Drop what overlaps evaluation sets."""
    split: Split = field(default_factory=Split)
    """Shares of validation and tasks."""
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    """Trained or loaded."""
    packing: Packing = field(default_factory=Packing)
    """Documents to rows."""
    shards: Shards = field(default_factory=Shards)
    """Layout of the tars."""
    tasks: Tasks | None = None
    """Demo tasks; none when empty."""

    def __post_init__(self) -> None:
        """Raise PipelineError naming every impossible key at once."""
        if found := list(problems(self)):
            raise PipelineError("this configuration can't work:\n  " + "\n  ".join(found))

    @property
    def seq_lens(self) -> list[int]:
        """All lengths of rows, that of OUTPUT itself first."""
        return [self.seq_len, *self.packing.more_seq_lens]

    @property
    def dtype(self) -> Literal["uint16", "uint32"]:
        """Smallest unsigned type that holds a token id."""
        return "uint16" if self.tokenizer.vocab_size <= 65_535 else "uint32"

    def content(self) -> dict[str, Any]:
        """All that decides the bytes of the shards, as JSON types (so: without `output`)."""
        content = asdict(self)
        del content["output"]
        return cast(dict[str, Any], json.loads(json.dumps(content)))  # keys as JSON has them

    def sha256(self) -> str:
        """Hash of `content`: the identity of a run."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()


def differing_keys(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines `key: theirs -> ours`, by dotted key, for two JSON-like configs."""
    lines = []
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key, "(absent)"), theirs.get(key, "(absent)")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differing_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {b} -> {a}")
    return lines


def option_names(sections: bool) -> list[str]:
    """Keys of the config: the top ones, and with `sections` those of every section too."""
    top = [f.name for f in fields(Config)]
    if not sections:
        return top
    parts = (
        *(Source, Cleaning, Repetition, NearDuplicates, Decontamination),
        *(Split, Tokenizer, Packing, Shards, Tasks),
    )
    return top + [f.name for part in parts for f in fields(part)]
