import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import Config, Source
from pipeline.report.sources import Outcome, alarms, table
from pipeline.run import run


def test_a_run_says_what_was_lost_of_each_source(
    make_config: Callable[..., Config],
    corpus: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "short.jsonl").write_text('{"text": "Too short."}\n' * 30)
    (tmp_path / "other.jsonl").write_text('{"body": "The text is elsewhere."}\n' * 20)
    (tmp_path / "none.jsonl").write_text("")
    names = ("short", "other", "none")
    sources = [Source(kind="jsonl", name="words", paths=[f"{corpus}/*.zst"])] + [
        Source(kind="jsonl", name=name, paths=[str(tmp_path / f"{name}.jsonl")]) for name in names
    ]
    config = make_config(sources=sources)
    with caplog.at_level("INFO"):
        manifest = run(config, ["--direct_num_workers=1"], False, lambda *_: None)
    told = next(r.message for r in caplog.records if r.message.startswith("documents by source"))
    rows = {line.split()[0]: re.split(r"\s{2,}", line) for line in told.splitlines()[2:]}
    assert rows == {
        "words": ["words", "360", "343", "0", "11 duplicate, 6 too_short"],
        "short": ["short", "30", "0", "0", "30 too_short"],
        "other": ["other", "0", "0", "20", "none"],
        "none": ["none", "0", "0", "0", "none"],
    }
    warnings = sorted({r.message for r in caplog.records if r.levelname == "WARNING"})
    where = f"{tmp_path}/other.jsonl"
    assert [line.partition("source ")[2].partition(f"{where}:")[0] for line in warnings] == [
        "'none': 0 of 0 documents are kept; see sources[3].paths and kind: its files hold none",
        "'other': 0 of 20 records are kept; 20 are unreadable (sources[2].kind, text_key), "
        "the first is ",
        "'short': 0 of 30 documents are kept; 30 are too_short (cleaning.min_characters: 50)",
    ]
    counts = manifest["counts"]["sources"]
    assert set(counts["none"].values()) == set(counts["other"].values()) == {0}
    rejected = [json.loads(line) for line in (tmp_path / "data/rejected.jsonl").open()]
    assert f"{rejected[0]['where']}: {rejected[0]['reason']}" in warnings[1]


def test_a_file_without_a_readable_record_is_told_beside_good_ones(
    make_config: Callable[..., Config],
    corpus: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = tmp_path / "export.json"
    whole.write_text('{"data": [{"text": "All of them in one."}]}')
    one_of_many = tmp_path / "mixed.jsonl"
    one_of_many.write_text('{"body": "x"}\n' + '{"text": "Nothing is wrong with this one."}\n' * 9)
    paths = [f"{corpus}/*.zst", str(whole), str(one_of_many)]
    config = make_config(sources=[Source(kind="jsonl", name="all", paths=paths)])
    with caplog.at_level("WARNING"):
        run(config, ["--direct_num_workers=1"], False, lambda *_: None)
    (warning,) = {r.message for r in caplog.records}
    assert "'all': no record of 1 of its files is readable (sources[0].kind" in warning
    assert f"the first is {whole}:1" in warning


def test_parts_of_long_documents_are_not_counted_as_read(
    make_config: Callable[..., Config],
) -> None:
    books = Outcome("books", read=16, kept=40, dropped=Counter(too_short=3), further_parts=27)
    assert re.search(r"books +16 +40  3 too_short \(of 43 parts\)", table([books]))
    assert list(alarms([books], make_config())) == []


def test_a_table_of_many_sources_fits_a_terminal() -> None:
    dropped = Counter(dict.fromkeys(("too_short", "too_long", "not_prose", "x" * 30), 10**9))
    outcomes = [Outcome(f"source {'long ' * n}", 10**7, n, dropped, n) for n in range(40)]
    lines = table(outcomes).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(int(line[34:48].replace(",", "").strip() or 0) for line in lines[1:]) == sum(
        range(40)
    )
    shown = " ".join(line[60:] for line in lines)
    assert shown.count("x" * 30) == 16  # 15 sources, and the others as one


def test_what_was_asked_for_is_no_alarm(make_config: Callable[..., Config]) -> None:
    config = make_config()
    config.sources[0].weight = 0.01
    sampled = Outcome("words", 1000, 10, Counter(not_sampled=985, too_short=5), 0)
    assert list(alarms([sampled], config)) == []
    dump = Outcome("words", 1000, 30, Counter(redirect=600, not_article=370), 0)
    assert list(alarms([dump], config)) == []
    little = Outcome("words", 1000, 10, Counter(not_sampled=100, not_prose=890), 0)
    assert len(list(alarms([little], config))) == 1
