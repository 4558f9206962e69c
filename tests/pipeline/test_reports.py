"""Odd inputs as people reported them elsewhere, through a whole run: read rightly, and told.

The inputs stand beside the checkout (`shared/reports`, with a README on what is right); their
brothers are made by the tests of each source and rule.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.report.verify import problems
from pipeline.store import pieces
from pipeline.store.folder import Folder

REPORTS = Path(__file__).parents[3] / "shared/reports"
WITHOUT_CONFIG = {
    "27-json-oddities": ["array.json", "bom", "latin1", "nul-in-text", "surrogate-in-id"],
    "42-suffixes": ["other.jsonl.gzip", "plain-named.jsonl.gz", "two-members.jsonl.gz"],
}
Found = dict[str, dict[str, str]]

pytestmark = pytest.mark.skipif(
    not REPORTS.exists(), reason="needs shared/reports beside the checkout"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of one run over all reports; its data folder is `data`.

    It has the reports' folders, so that their paths and `make.py` hold, and nothing is written
    there.
    """
    here = tmp_path_factory.mktemp("reports")
    sources = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for report in sorted(REPORTS.iterdir()):
            (here / report.name).symlink_to(report)
            if (report / "make.py").exists() and (report / "pipeline.yaml").exists():
                script = f"{report.name}/make.py"
                subprocess.run([sys.executable, script], check=True, capture_output=True)
            if (config := report / "pipeline.yaml").exists() and report.name != "common":
                own = yaml.safe_load(config.read_text())["sources"]
                sources += [
                    source | {"name": f"{report.name[:2]}-{source['name']}"}
                    for source in own
                    if source["name"] != "filler"
                ]
        for report_name, names in WITHOUT_CONFIG.items():
            for name in names:
                path = f"{report_name}/{name}" if "." in name else f"{report_name}/{name}.jsonl"
                sources.append(
                    {"kind": "jsonl", "name": f"{report_name[:2]}-{name}", "paths": [path]}
                )
        content = yaml.safe_load(Path("common/pipeline.yaml").read_text())
        content["output"] = "data"
        content["sources"] += sources
        Path("config.yaml").write_text(yaml.safe_dump(content))
        assert main(["--config", "config.yaml", "--direct_num_workers=1"]) == 0
        yield here


@pytest.fixture(scope="module")
def found(run: Path) -> Found:
    """The cleaned documents: {source: {id: text}}."""
    folder = Folder(str(run / "data"))
    assert problems(folder) == []
    chunks = len(json.loads(folder.read(".work/plan.json"))["chunks"])
    documents: Found = defaultdict(dict)
    for piece in (name for i in range(chunks) for name in pieces.read_done(folder, i)["pieces"]):
        for document in pieces.read_documents(folder, piece):
            assert document.id not in documents[document.source]
            documents[document.source][document.id] = document.text
    return documents


def _read(run: Path, source: str) -> int:
    count: int = json.loads((run / "data/manifest.json").read_text())["counts"]["sources"][source][
        "read"
    ]
    return count


def test_files_of_one_name_in_many_folders(found: Found) -> None:
    numbers = sorted(text.split("number ")[1][0] for text in found["01-wiki"].values())
    assert numbers == ["1", "2", "3", "4", "9"]


def test_a_german_dump(found: Found) -> None:
    (text,) = found["02-de"].values()
    assert "\n\nDie Ofenbank ist eine Sitzbank, die um einen Ofen läuft. Im" in text
    for markup in ("mini", "hochkant", "Kategorie", "thumb", "Stove bench", "Bank am"):
        assert markup not in text


def test_ids_that_are_the_same_or_null(run: Path, found: Found) -> None:
    lines = sum(1 for _ in (REPORTS / "08-ids-say-nothing/zero-ids.jsonl").open())
    for source in ("08-zero", "08-nulls"):
        assert _read(run, source) == lines
        assert 0.25 < len(found[source]) / lines < 0.75  # weight: 0.5


@pytest.mark.parametrize("language", ["hi", "ta", "th"])
def test_prose_with_combining_marks(found: Found, language: str) -> None:
    given = (REPORTS / f"15-vowel-signs/{language}.jsonl").read_text().splitlines()
    assert len(found[f"15-{language}"]) == len(given) > 0


def test_titles_with_colons(found: Found) -> None:
    (text,) = found["16-wiki"].values()
    for words in (
        "the station showed CSI: Miami and the New York series after",
        "preferred Re:Zero and Pac-Man: A New Maze, and",
        "asked for an older one.",
    ):
        assert words in text
    assert "Television" not in text
    assert "Programmes" not in text


def test_one_endless_word(run: Path, found: Found) -> None:
    files = list((run / "runs/reports/19-long").iterdir())
    assert _read(run, "19-long") == len(files) > 0


@pytest.mark.parametrize(
    "name",
    [f"{report[:2]}-{name}" for report, names in WITHOUT_CONFIG.items() for name in names],
)
def test_odd_files_give_their_good_records(found: Found, name: str) -> None:
    numbers = {text.split(".")[0] for text in found[name].values()}
    assert numbers >= {f"Report number {number}" for number in range(6)}


def test_a_surrogate_in_an_id_costs_at_most_its_record(run: Path, found: Found) -> None:
    lines = (REPORTS / "27-json-oddities/surrogate-in-id.jsonl").read_text().splitlines()
    rejected = (run / "data/rejected.jsonl").read_text().splitlines()
    lost = [line for line in rejected if "surrogate-in-id" in line]
    assert len(found["27-surrogate-in-id"]) + len(lost) == len(lines)
