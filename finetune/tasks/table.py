"""The table of tasks: columns, labels and their order, metrics, files, official sizes.

Owns everything that differs between tasks, so that no other file names one. Label orders are the
Hub's `glue`, metrics are `run_glue.py`'s and, beyond GLUE, those of the masking paper (methods
§2.7, §3.1); sizes are the official ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from finetune.errors import FinetuneError

Kind = Literal["text", "tokens", "choice"]
Format = Literal["tsv", "csv", "json", "conll", "trec"]


@dataclass(frozen=True)
class File:
    """A split's file: the names it goes by (the first is the official one) and its official size.

    `submission` is the file's name in what the GLUE server takes, "" if it takes none.
    """

    names: tuple[str, ...]
    rows: int | None = None
    submission: str = ""


@dataclass(frozen=True)
class Hub:
    """The same task on the Hub; its class ids are in our order of labels."""

    dataset: str
    config: str | None
    inputs: tuple[str, ...]
    dev: Mapping[str, str] = field(default_factory=lambda: {"": "validation"})
    test: Mapping[str, str] = field(default_factory=lambda: {"": "test"})


@dataclass(frozen=True)
class Task:
    """One row of the table.

    `inputs` are the text columns: for kind `text` one sentence or two; for `tokens` the words; for
    `choice` a sentence, the beginning of the next one, and its endings. `labels` is the order of
    the classes; empty for regression, None to read them (sorted) from the training file; `spelled`
    maps other spellings to them. `dev` and `test` map the suffix of a split's results ("" or "-mm")
    to its file. `headerless` names the columns of files without a header line, `headerless_test`
    those of test files. `may_be_quoted` is for TSVs of one's own, which a CSV writer may have
    written. `baseline` is what an unfinished task predicts in a submission.
    """

    folder: str
    inputs: tuple[str, ...]
    train: File
    dev: Mapping[str, File]
    test: Mapping[str, File] = field(default_factory=dict)
    label: str = "label"
    labels: tuple[str, ...] | None = ("0", "1")
    spelled: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("accuracy",)
    kind: Kind = "text"
    format: Format | None = None
    headerless: tuple[str, ...] = ()
    headerless_test: tuple[str, ...] = ()
    drops_short_rows: bool = False
    may_be_quoted: bool = False
    baseline: str = ""
    hub: Hub | None = None

    @property
    def is_regression(self) -> bool:
        """True for a score instead of classes (STS-B)."""
        return self.labels == ()


PAIR = ("sentence1", "sentence2")
ENTAILMENT = ("entailment", "not_entailment")


def _glue(
    config: str, folder: str, inputs: tuple[str, ...], rows: tuple[int, int, int], **fields: object
) -> Task:
    """A task in GLUE's usual layout; `rows` are the sizes of train, dev and test."""
    hub_inputs = fields.pop("hub_inputs", inputs)
    layout: dict[str, object] = {
        "train": File(("train.tsv",), rows[0]),
        "dev": {"": File(("dev.tsv",), rows[1])},
        "test": {"": File(("test.tsv",), rows[2], f"{folder}.tsv")},
        "hub": Hub("nyu-mll/glue", config, hub_inputs),  # type: ignore[arg-type]
    }
    return Task(folder, inputs, **(layout | fields))  # type: ignore[arg-type]


GLUE = {
    "cola": _glue(
        "cola",
        "CoLA",
        ("sentence",),
        (8551, 1043, 1063),
        metrics=("matthews_correlation",),
        headerless=("source", "label", "mark", "sentence"),
        baseline="1",
    ),
    "sst2": _glue("sst2", "SST-2", ("sentence",), (67349, 872, 1821), baseline="1"),
    "mrpc": _glue(
        "mrpc",
        "MRPC",
        ("#1 String", "#2 String"),
        (3668, 408, 1725),
        label="Quality",
        metrics=("accuracy", "f1"),
        hub_inputs=PAIR,
        baseline="1",
    ),
    "stsb": _glue(
        "stsb",
        "STS-B",
        PAIR,
        (5749, 1500, 1379),
        label="score",
        labels=(),
        metrics=("pearson", "spearmanr"),
        baseline="2.500",
    ),
    "qqp": _glue(
        "qqp",
        "QQP",
        ("question1", "question2"),
        (363846, 40430, 390965),
        label="is_duplicate",
        metrics=("accuracy", "f1"),
        drops_short_rows=True,
        baseline="0",
    ),
    "mnli": Task(
        "MNLI",
        PAIR,
        File(("train.tsv",), 392702),
        {"": File(("dev_matched.tsv",), 9815), "-mm": File(("dev_mismatched.tsv",), 9832)},
        # AX, GLUE's diagnostic set, has no training rows: MNLI's model predicts it.
        {
            "": File(("test_matched.tsv",), 9796, "MNLI-m.tsv"),
            "-mm": File(("test_mismatched.tsv",), 9847, "MNLI-mm.tsv"),
            "-ax": File(("../AX/AX.tsv", "../diagnostic/diagnostic.tsv"), 1104, "AX.tsv"),
        },
        label="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        baseline="contradiction",
        hub=Hub(
            "nyu-mll/glue",
            "mnli",
            ("premise", "hypothesis"),
            {"": "validation_matched", "-mm": "validation_mismatched"},
            {"": "test_matched", "-mm": "test_mismatched"},
        ),
    ),
    "qnli": _glue(
        "qnli",
        "QNLI",
        ("question", "sentence"),
        (104743, 5463, 5463),
        labels=ENTAILMENT,
        baseline="entailment",
    ),
    "rte": _glue("rte", "RTE", PAIR, (2490, 277, 3000), labels=ENTAILMENT, baseline="entailment"),
    "wnli": _glue("wnli", "WNLI", PAIR, (635, 71, 146), baseline="0"),
}

TREC_FILES: dict[str, object] = {
    "train": File(("train_5500.label", "TREC.train"), 5452),
    # The official test is what papers evaluate; there is no official dev split.
    "dev": {"": File(("TREC_10.label", "TREC.test"), 500)},
    "format": "trec",
}
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
UPOS = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
)
AG_NEWS = ("World", "Sports", "Business", "Sci/Tech")
PAPERS = {
    "trec": Task(
        "TREC",
        ("question",),
        label="coarse",
        labels=("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
        **TREC_FILES,  # type: ignore[arg-type]
    ),
    "trec_fine": Task("TREC", ("question",), label="fine", labels=None, **TREC_FILES),  # type: ignore[arg-type]
    "ag_news": Task(
        "ag_news",
        ("title", "description"),
        File(("train.csv",), 120000),
        {"": File(("test.csv",), 7600)},
        labels=AG_NEWS,
        spelled={str(number): name for number, name in enumerate(AG_NEWS, start=1)},
        headerless=("label", "title", "description"),
        hub=Hub("fancyzhx/ag_news", None, ("text",), {"": "test"}, {}),
    ),
    "semeval": Task(
        "semeval2016",
        ("text",),
        File(("twitter-2016train-A.txt",)),
        {"": File(("twitter-2016dev-A.txt",))},
        {"": File(("twitter-2016test-A.txt",))},
        labels=("negative", "neutral", "positive"),
        headerless=("id", "label", "text"),
        headerless_test=("id", "label", "text"),
    ),
    "pos": Task(
        "ud-english-ewt",
        ("form",),
        File(("en_ewt-ud-train.conllu", "en_ewt-ud-train.conllu.gz"), 12544),
        {"": File(("en_ewt-ud-dev.conllu",), 2001)},
        {"": File(("en_ewt-ud-test.conllu",), 2077)},
        label="upos",
        labels=UPOS,
        kind="tokens",
        headerless=CONLLU,
        headerless_test=CONLLU,
    ),
    "ner": Task(
        "conll2003",
        ("form",),
        File(("train.txt", "eng.train"), 14041),
        {"": File(("valid.txt", "eng.testa"), 3250)},
        {"": File(("test.txt", "eng.testb"), 3453)},
        label="tag",
        labels=None,
        metrics=("entity_f1",),
        kind="tokens",
        format="conll",
        headerless=("form", "pos", "chunk", "tag"),
        headerless_test=("form", "pos", "chunk", "tag"),
    ),
    "wnut17": Task(
        "wnut17",
        ("form",),
        File(("wnut17train.conll",), 3394),
        {"": File(("emerging.dev.conll",), 1009)},
        {"": File(("emerging.test.annotated",), 1287)},
        label="tag",
        labels=None,
        metrics=("entity_f1",),
        kind="tokens",
        format="conll",
        headerless=("form", "tag"),
        headerless_test=("form", "tag"),
    ),
    "swag": Task(
        "swag",
        ("sent1", "sent2", "ending0", "ending1", "ending2", "ending3"),
        File(("train.csv",), 73546),
        {"": File(("val.csv",), 20006)},
        {"": File(("test.csv",), 20005)},
        labels=("0", "1", "2", "3"),
        kind="choice",
        hub=Hub(
            "allenai/swag",
            "regular",
            ("sent1", "sent2", "ending0", "ending1", "ending2", "ending3"),
        ),
    ),
}


def _demo(folder: str, inputs: tuple[str, ...], labels: tuple[str, ...] | None) -> Task:
    return Task(
        folder,
        inputs,
        File(("train.tsv",)),
        {"": File(("dev.tsv",))},
        {"": File(("test.tsv",))},
        labels=labels,
    )


# The tasks the pipeline cuts from the demo's own text; they are not GLUE.
DEMO = {
    "library": _demo("library", ("sentence",), None),
    "same_docstring": _demo("same_docstring", PAIR, ("different", "same")),
}
TASKS = {**GLUE, **PAPERS, **DEMO}


def find_task(name: str) -> Task:
    """The task called `name`; an unknown one raises FinetuneError with the nearest names."""
    if name in TASKS:
        return TASKS[name]
    near = get_close_matches(name.lower(), TASKS, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    if name == "ax":
        hint = " AX has no training rows: --task_name mnli --do_predict predicts it."
    raise FinetuneError(f"--task_name {name}: no such task.{hint} There are: {', '.join(TASKS)}.")
