import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import Item, plan, read
from pipeline.sources.json_values import split
from pipeline.sources.records import Document, Rejected

REPORT = Path(__file__).parents[4] / "shared/reports/27-json-oddities"
RECORDS = [{"id": f"g{i}", "text": f"text {i} with ü"} for i in range(30)]


def _read(path: Path, chunk_bytes: int = 10**6, **settings: str) -> list[Item]:
    source = Source(kind="jsonl", paths=[str(path)], **settings)  # type: ignore[arg-type]
    return [i for c in plan([source], chunk_bytes) for file in c.files for i in read(source, file)]


def _good(items: list[Item]) -> list[tuple[str, str]]:
    return [(item.id, item.text) for item in items if isinstance(item, Document)]


EXPECTED = [(f"jsonl/a:{record['id']}", record["text"]) for record in RECORDS]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk_bytes", [100, 10**6])
def test_one_array_is_read(
    tmp_path: Path, encoding: str, indent: int | None, chunk_bytes: int
) -> None:
    text = "\n " + json.dumps(RECORDS, indent=indent, ensure_ascii=False)
    (tmp_path / "a").write_bytes(text.encode(encoding))
    assert _good(_read(tmp_path / "a", chunk_bytes)) == EXPECTED


@pytest.mark.parametrize("chunk_bytes", [100, 10**6])
def test_objects_over_several_lines_are_read(tmp_path: Path, chunk_bytes: int) -> None:
    (tmp_path / "a").write_text("\n".join(json.dumps(record, indent=1) for record in RECORDS))
    assert _good(_read(tmp_path / "a", chunk_bytes)) == EXPECTED


def test_an_array_is_never_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as file:
        file.write("[")
        for i in range(300):
            file.write(json.dumps({"text": f"{i} " * 20_000}) + ("," if i < 299 else "]"))
    assert (tmp_path / "a").stat().st_size > 20_000_000
    source = Source(kind="jsonl", paths=[str(tmp_path / "a")])
    (chunk,) = plan([source], 10**6)
    tracemalloc.start()
    assert sum(isinstance(item, Document) for item in read(source, chunk.files[0])) == 300
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_an_array_that_is_cut_off_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(json.dumps(RECORDS)[:-100])
    with pytest.raises(BadFile, match=r"a: damaged or cut off behind record 2\d"):
        _read(tmp_path / "a")


ODD = {
    "a lone surrogate in the id": b'{"id": "x\\ud800y", "text": "odd"}',
    "a lone surrogate in the text": b'{"id": "o", "text": "x\\udfffy"}',
    "deep nesting": b'{"id": "o", "text": "x", "more": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "a NUL": b'{"id": "o", "text": "x\x00y"}',
    "an escaped NUL": b'{"id": "o\\u0000", "text": "x\\u0000y"}',
    "a number of too many digits": b'{"id": ' + b"7" * 9999 + b', "text": "x"}',
    "a large number": b'{"id": ' + b"7" * 4000 + b', "text": "x"}',
    "infinity": b'{"id": 1e999, "text": "x"}',
    "NaN": b'{"id": NaN, "text": "x"}',
    "a byte that isn't UTF-8": b'{"id": "o", "text": "\xff"}',
    "half a character": b'{"id": "o", "text": "\xc3"}',
    "a list for a text": b'{"id": "o", "text": ["x"]}',
    "an object for an id": b'{"id": {"a": [1]}, "text": "x"}',
    "no object": b"[1, 2]",
    "a cut record": b'{"id": "o", "te',
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("at", [0, 15])
def test_an_odd_record_costs_no_other(tmp_path: Path, odd: str, at: int) -> None:
    lines = [json.dumps(record).encode() for record in RECORDS]
    if at == 0 and odd == "no object":
        pytest.skip("an array")
    (tmp_path / "a").write_bytes(b"\n".join([*lines[:at], ODD[odd], *lines[at:]]) + b"\n")
    found = _read(tmp_path / "a")
    assert len(found) == 31
    assert [pair for pair in _good(found) if pair in EXPECTED] == EXPECTED
    (other,) = [x for x in found if not isinstance(x, Document) or (x.id, x.text) not in EXPECTED]
    if isinstance(other, Rejected):
        assert other.where == f"{tmp_path / 'a'}:{at + 1}"
    else:
        other.id.encode()  # type: ignore[union-attr]


def test_ids_that_say_nothing_are_lines(tmp_path: Path) -> None:
    own = [0, 0, None, "", "x", 0]
    lines = [json.dumps({"id": i, "text": "t"}) for i in own] + ['{"text": "t"}']
    (tmp_path / "a").write_text("\n".join(lines))
    assert [key for key, _ in _good(_read(tmp_path / "a"))] == [
        "jsonl/a:0",
        "jsonl/a:0:2",
        "jsonl/a:3",
        "jsonl/a:4",
        "jsonl/a:x",
        "jsonl/a:0:6",
        "jsonl/a:7",
    ]


@given(
    own=st.lists(st.one_of(st.none(), st.just("")), min_size=1, max_size=40),
    chunk_bytes=st.integers(10, 200),
)
def test_ids_are_unique_in_parts_too(
    own: list[str | None], chunk_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "a"
    path.write_text("".join(json.dumps({"id": i, "text": "t"}) + "\n" for i in own))
    keys = [key for key, _ in _good(_read(path, chunk_bytes))]
    assert len(set(keys)) == len(keys) == len(own)


def test_what_is_not_json_at_all_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("id,text\n" * 100)
    with pytest.raises(BadFile, match=r"a:10: not JSON .*check `kind`"):
        _read(tmp_path / "a")


@pytest.mark.skipif(not REPORT.exists(), reason="needs shared/reports beside the checkout")
@pytest.mark.parametrize("name", ["array.json", "bom", "latin1", "nul-in-text", "surrogate-in-id"])
def test_reported_files_give_their_six_good_records(name: str) -> None:
    path = REPORT / (name if "." in name else f"{name}.jsonl")
    texts = {text for _, text in _good(_read(path)) if text.startswith("Report number")}
    assert len(texts) >= 6


@pytest.mark.parametrize("odd", [name for name in ODD if name != "a cut record"])
@pytest.mark.parametrize("form", ["[%s]", "%s"])
def test_an_array_and_objects_side_by_side_are_read_as_lines_are(
    tmp_path: Path, odd: str, form: str
) -> None:
    objects = [json.dumps(record).encode() for record in RECORDS]
    objects.insert(15, ODD[odd])
    (tmp_path / "a").write_bytes(b"\n".join(objects))
    lines = _read(tmp_path / "a")
    if form == "%s" and odd == "no object":
        pytest.skip("an array")
    for between in (b",", b"", b", \n", b"\r"):
        (tmp_path / "a").write_bytes(form.encode() % between.join(objects))
        found = _read(tmp_path / "a")
        assert len(found) == len(lines)
        for here, there in zip(found, lines, strict=True):
            if isinstance(there, Rejected) and "not utf-8" in there.reason:
                assert isinstance(here, Rejected)
                assert here.where == there.where
                assert "not utf-8" in here.reason
            else:
                assert str(here) == str(there)  # NaN is equal to none, but is written alike
                assert "\n" not in str(here)


@given(
    values=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(), some, max_size=3),
            max_leaves=9,
        ),
        max_size=6,
    ),
    indent=st.sampled_from([None, 0, 3]),
    width=st.integers(1, 50),
)
def test_an_array_gives_its_elements_wherever_its_blocks_are_cut(
    values: list[object], indent: int | None, width: int
) -> None:
    content = json.dumps(values, indent=indent, ensure_ascii=False).encode(errors="surrogatepass")
    blocks = (content[at : at + width] for at in range(0, len(content), width))
    assert [repr(json.loads(raw)) for raw in split(blocks)] == [repr(value) for value in values]


@pytest.mark.parametrize(
    ("content", "good", "bad"),
    [
        (b'[{"text": "a"}, {"text": "b"},]', 2, 0),
        (b'{"text": "a"},\n{"text": "b"},\n', 2, 0),
        (b'{"text": "a"}{"text": "b"}\n', 2, 0),
        (b'{"text": "a"}\r{"text": "b"}\r', 2, 0),
        (b'[{"text": "a"}] [{"text": "b"}]', 2, 0),
        (b'[{"text": "a"}, oops, {"text": "b", }, {"text": "c"}]', 2, 2),
        (b'[{"text": "a"}]]}', 1, 2),
        (b"[]", 0, 0),
    ],
)
def test_what_people_write_for_json(tmp_path: Path, content: bytes, good: int, bad: int) -> None:
    (tmp_path / "a").write_bytes(content)
    found = _read(tmp_path / "a")
    assert [isinstance(item, Document) for item in found].count(True) == good
    assert len(found) == good + bad


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"text": "a"}, {"text": "b"', "behind record 1 .*has no end"),
        (b'[{"text": "a"},', "behind record 1 .*the array has no end"),
        (b'[{"text": "a"}, {"text": "b}, {"text": "c"}]', "behind record 1 "),
        (b"[Part One]\n" + b"It was a dark and stormy night.\n" * 9, "not JSON"),
    ],
)
def test_what_is_no_whole_json_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(BadFile, match=words) as told:
        _read(tmp_path / "a")
    assert "\n" not in str(told.value)


def test_two_records_in_the_last_line_are_not_called_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'{"text": "a"}\n{"text": "b"}{"text": "c"}')
    document, rejected = _read(tmp_path / "a")
    assert isinstance(document, Document)
    assert "Extra data" in str(rejected)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("null", "'a.text' is null, expected a text"),
        ("[1]", "'a.text' is a list of other things than strings, expected a text"),
        ("{}", "'a.text' is an object, expected a text"),
        ("1.5", "'a.text' is a number, expected a text"),
        ("true", "'a.text' is a boolean, expected a text"),
    ],
)
def test_what_stands_in_the_place_of_a_text_is_told(tmp_path: Path, value: str, says: str) -> None:
    (tmp_path / "a").write_text(
        f'{{"a": {{"text": {value}}}}}\n'
        '{"a": {"text": ["One.", "Two."], "id": 7}}\n{"a.text": "whole", "a": 3}\n{"a": 3}\n'
    )
    rejected, nested, whole, none = _read(tmp_path / "a", text_key="a.text", id_key="a.id")
    assert rejected == Rejected(f"{tmp_path}/a:1", says)
    assert nested == Document("jsonl/a:7", "One.\n\nTwo.", "jsonl")
    assert whole == Document("jsonl/a:3", "whole", "jsonl")
    assert none == Rejected(f"{tmp_path}/a:4", "no text under 'a.text'; it has a")
