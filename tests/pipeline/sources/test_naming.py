import math
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Split
from pipeline.sources.naming import Ids, file_names
from pipeline.split import document_hash, split_of

_PATHS = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), unique=True
)


def test_names_are_basenames_where_they_differ_and_begin_where_paths_part_elsewhere() -> None:
    paths = ["/x/extracted/AA/wiki_00", "/x/extracted/AB/wiki_00", "/x/extracted/AA/wiki_01"]
    assert list(file_names("w", paths).values()) == ["w/AA/wiki_00", "w/AB/wiki_00", "w/wiki_01"]
    assert file_names("w", ["s3://b/c/d"]) == {"s3://b/c/d": "w/d"}
    assert list(file_names("w", ["s3://b/1/d", "s3://c/1/d"]).values()) == ["w/b/1/d", "w/c/1/d"]
    assert list(file_names("w", ["ann/corpus", "bob/corpus"]).values()) == [
        "w/ann/corpus",
        "w/bob/corpus",
    ]


@settings(max_examples=50)
@given(paths=_PATHS)
def test_names_are_unique_and_depend_on_neither_order_nor_folder(paths: list[str]) -> None:
    names = file_names("s", paths)
    assert len(set(names.values())) == len(paths)
    assert file_names("s", paths[::-1]) == names
    assert list(file_names("s", [f"/else/where/{p}" for p in paths]).values()) == list(
        names.values()
    )


def test_good_ids_are_what_they_were() -> None:
    ids = Ids("s/a.jsonl")
    assert [ids.of(own, ":9") for own in ("x", 7, 1.5, True, {"$oid": "f"})] == [
        "s/a.jsonl:x",
        "s/a.jsonl:7",
        "s/a.jsonl:1.5",
        "s/a.jsonl:True",
        "s/a.jsonl:{'$oid': 'f'}",
    ]


@settings(max_examples=50)
@given(st.lists(st.one_of(st.none(), st.text(), st.integers(0, 3), st.floats()), max_size=12))
def test_documents_have_ids_of_their_own_whatever_the_records_say(own: list[Any]) -> None:
    ids = Ids("s/a")
    found = [ids.of(value, f"@5:{number}") for number, value in enumerate(own)]
    assert len(set(found)) == len(found)
    for text in found:
        text.encode()


def test_ids_that_say_nothing_are_where_the_document_stands() -> None:
    ids = Ids("s/a")
    assert [ids.of(own, f":{i}") for i, own in enumerate([None, "", " ", math.nan])] == [
        f"s/a:{i}" for i in range(4)
    ]


def test_constant_ids_are_split_as_others(monkeypatch: Any) -> None:
    monkeypatch.setattr("pipeline.sources.naming._REMEMBERED", 10)
    ids = Ids("s/a")
    found = [ids.of("0" if i % 3 else f"own {i}", f":{i}") for i in range(4000)]
    assert len(set(found)) == 4000
    valid = [split_of(document_hash(x), Split(valid=0.1)) == "valid" for x in found]
    assert 320 < sum(valid) < 480


def test_a_repeated_id_is_known_among_very_many(monkeypatch: Any) -> None:
    monkeypatch.setattr("pipeline.sources.naming._REMEMBERED", 50)
    rng = random.Random(0)
    ids = Ids("s/a")
    found = [ids.of(rng.randrange(40), f":{i}") for i in range(2000)]
    assert len(set(found)) == 2000
    assert len(ids._recent) + len(ids._older) <= 100
