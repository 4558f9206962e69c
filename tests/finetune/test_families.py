"""Every family of the installed transformers, as docs/masks.md lists them."""

from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.families.__main__ import main
from finetune.families.trial import families

PAGE = Path(__file__).parents[2] / "docs" / "masks.md"
FEW = ["albert", "deberta-v2", "modernbert", "mpnet"]


def listed() -> dict[str, str]:
    """The page's rows by family."""
    lines = PAGE.read_text(encoding="utf-8").partition("## Families")[2].splitlines()
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def printed(capsys: pytest.CaptureFixture[str], *names: str) -> list[str]:
    main(names)
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith("|")]  # DeepSpeed's first import prints, too


def test_the_page_lists_every_family() -> None:
    assert [name for name in families() if name not in listed()] == []


def test_a_few_families_do_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, *rows = printed(capsys, *FEW)
    assert rows == [listed()[name] for name in FEW]


@pytest.mark.long
def test_all_families_do_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    header, rule, *rows = printed(capsys)
    assert "\n".join([header, rule, *rows]) in PAGE.read_text(encoding="utf-8")


def test_an_unknown_family() -> None:
    with pytest.raises(FinetuneError, match="berd: no family that is tried"):
        main(["berd"])
