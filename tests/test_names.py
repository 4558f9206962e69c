"""One vocabulary, the field's: words that were replaced stay out of code and docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    *("pipeline", "pretrain", "finetune", "reproduce", "benchmarks"),
    *("demo", "slurm", "configs", "docs"),
)
SUFFIXES = {".py", ".md", ".sh", ".yaml", ".jinja"}
REPLACED = {
    r"holes?": "masked positions",
    r"arms?": "variant, run",
    r"adopt(s|ed)?": "remap_special_tokens, write_or_check_config",
    r"settle(s|d)?": "select_survivors",
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again",
    r"go(es)? on (with|where|from)|gone on": "resume, continue",
    r"gone": "removed, missing, ended",
    r"left out": "dropped",
    r"(nats|points) less": "relative to vanilla",
    r"by force": "fault injection",
    r"kin|dear|wears?|the house": "plain words",
}
KEPT = {
    ("pretrain/earlier_releases.py", "holes"),  # a value in files of earlier releases
    ("reproduce/late_masking/collect.py", "arm"),  # a column in records of earlier commits
    ("configs/reproduce/late_masking_small.yaml", "holes"),  # names of variants in the record
    ("docs/reproduction/experiment.yaml", "holes"),
    ("docs/reproduction/experiment.yaml", "hole"),  # a record's own words
}
FILES = [ROOT / "README.md", ROOT / "Makefile"] + [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in SUFFIXES
]


@pytest.mark.parametrize("word", REPLACED)
def test_the_fields_words(word: str) -> None:
    pattern = re.compile(rf"\b({word})\b", re.IGNORECASE)
    found = [
        f"{name}:{number}: {match[0]}"
        for path in FILES
        for name in [path.relative_to(ROOT).as_posix()]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        for match in pattern.finditer(line)
        if (name, match[0]) not in KEPT
    ]
    assert not found, f"say {REPLACED[word]}"
