import glob
import json
import os
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.sources import plan, read, urls
from pipeline.sources.files import matching
from pipeline.sources.paths import match


def _tree(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def _names(folder: Path, pattern: str, *suffixes: str) -> list[str]:
    return [os.path.relpath(path, folder) for path in match(pattern, suffixes)]


@pytest.mark.parametrize(
    "name",
    [
        "Smith [1999]/part[1].txt",
        "*.txt",
        "~",
        "~root/x.txt",
        "50%25.txt",
        "a: b.txt",
        "s3://bucket/x.txt",
        "what?.txt",
        " ",
    ],
)
def test_a_name_that_exists_is_that_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tree(tmp_path, name, "other.txt", "whatx.txt", "Smith 1/part1.txt")
    monkeypatch.chdir(tmp_path)
    (file,) = matching(Source(kind="text", paths=[name]))
    assert Path(file.path).read_text() == name
    (file,) = matching(Source(kind="text", paths=[str(tmp_path / name)]))
    assert file.bytes == len(name)


def test_a_pattern_may_stand_in_a_folder_whose_name_looks_like_one(tmp_path: Path) -> None:
    _tree(tmp_path, "Smith [1999]/a.txt", "Smith [1999]/b.txt", "Smith 1/c.txt")
    assert _names(tmp_path, f"{tmp_path}/Smith [1999]/*.txt") == [
        "Smith [1999]/a.txt",
        "Smith [1999]/b.txt",
    ]
    assert _names(tmp_path, f"{tmp_path}/Smith [1]/*.txt") == ["Smith 1/c.txt"]


def test_tilde_and_file_urls_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tree(tmp_path, "a b.txt", "c.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _names(tmp_path, "~/c.txt") == ["c.txt"]
    assert _names(tmp_path, "~/*.txt") == ["a b.txt", "c.txt"]
    assert _names(tmp_path, f"file://{tmp_path}/a%20b.txt") == ["a b.txt"]
    assert _names(tmp_path, f"file://localhost{tmp_path}/a b.txt") == ["a b.txt"]
    assert _names(tmp_path, f"file://{tmp_path}/*.txt") == ["a b.txt", "c.txt"]


def test_a_folder_is_its_files_of_the_kind(tmp_path: Path) -> None:
    _tree(tmp_path, "b/x.jsonl.GZ", "a.jsonl", "README.md", ".hidden/y.jsonl", ".z.jsonl")
    _tree(tmp_path, "_SUCCESS", "_temporary/0/w.jsonl", "b/c/_metadata")
    assert _names(tmp_path, str(tmp_path), ".jsonl") == ["a.jsonl", "b/x.jsonl.GZ"]
    assert _names(tmp_path, f"{tmp_path}/", ".parquet") == ["README.md", "a.jsonl", "b/x.jsonl.GZ"]
    assert _names(tmp_path, f"{tmp_path}/[bc]", ".jsonl") == ["b/x.jsonl.GZ"]
    assert _names(tmp_path, f"{tmp_path}/*", ".jsonl") == ["README.md", "_SUCCESS", "a.jsonl"]


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.txt"])
def test_links_to_folders_above_are_not_followed(pattern: str, tmp_path: Path) -> None:
    _tree(tmp_path, "a/x.txt", "b/y.txt", "elsewhere/z.txt")
    (tmp_path / "a/self").symlink_to("../a")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/to_b").symlink_to("../b")
    (tmp_path / "b/to_a").symlink_to("../a")
    (tmp_path / "b/self").symlink_to(".")
    (tmp_path / "nothing.txt").symlink_to("nothing.txt")
    found = _names(tmp_path, f"{tmp_path}{pattern}", ".txt")
    assert len(found) == len(set(found)) < 12
    assert {Path(name).name for name in found} == {"x.txt", "y.txt", "z.txt"}


_PART = st.sampled_from(["a", "b", "ab", ".h", "a.txt", "*", "a*", "?", "[ab]", "*.txt"])


@given(parts=st.lists(st.one_of(_PART, st.just("**")), min_size=1, max_size=4))
def test_patterns_match_what_glob_matches(
    parts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "same_tree"
    if not folder.exists():
        _tree(folder, "a/a.txt", "a/ab/b", "a/ab/a.txt", "b/a", ".h/a.txt", "ab/.h", "c.txt")
    pattern = f"{folder}/{'/'.join(parts)}"
    expected = sorted({p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p)})  # noqa: PTH113, PTH207
    hidden = any(part.startswith(".") for part in parts)
    if expected and not ("**" in parts and hidden):
        assert match(pattern, ()) == expected


def test_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"one\n\xff\n")
    source = Source(kind="text", paths=[f"{tmp_path}/*.txt"], documents="line")
    (chunk,) = plan([source], 100)
    document, rejected = read(source, chunk.files[0])
    assert document.id == "text/caf\\udce9.txt:1"  # type: ignore[union-attr]
    assert os.fsencode(rejected.where) == path + b":2"  # type: ignore[union-attr]


def test_what_is_not_there_is_one_line_with_the_path_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for path, tried, what in (
        ("x.txt", "x.txt", "no file matches"),
        ("~/x*", "x*", "no file matches"),
        ("x\0y", "x\0y", "no file matches"),
        ("x" * 300, "x" * 300, "no file matches"),
        ("file:///none", "/none", "no file matches"),
        ("pipe", "pipe", "no regular file"),
        ("empty", "empty", "no folder with files"),
        ("loop", "loop", "no regular file"),
    ):
        with pytest.raises(PipelineError) as raised:
            plan([Source(kind="text", name="s", paths=[path])], 100)
        text = str(raised.value)
        assert "\n" not in text
        assert text.startswith("sources (s): ")
        assert what in text
        assert str(tmp_path / tried) in text


@pytest.mark.parametrize("state", ["begun", "finished"])
def test_data_folders_of_the_pipeline_are_passed_over(tmp_path: Path, state: str) -> None:
    data = tmp_path / "texts/sub/data"
    (data / ".work").mkdir(parents=True)
    (data / "rejected.jsonl").write_text("{}")
    if state == "begun":
        (data / ".work/config.json").write_text("{}")
    else:
        (data / "manifest.json").write_text(json.dumps({"format": "latemask-shards"}, indent=1))
    mine = tmp_path / "texts/mine"
    mine.mkdir()
    for name in ("a.jsonl", "manifest.json"):
        (mine / name).write_text("{}")
    expected = [f"{mine}/a.jsonl", f"{mine}/manifest.json"]
    for path in ("texts", "texts/**/*.json*", "text?/*", "texts/*/*.json*"):
        assert match(f"{tmp_path}/{path}", (".jsonl", ".json")) == expected, path
    assert match(f"{tmp_path}/texts/*/*/*.jsonl", (".jsonl",)) == []
    assert match(f"{data}/*.jsonl", (".jsonl",)) == [f"{data}/rejected.jsonl"]  # by its name
    memory = f"memory://{tmp_path.name}-{state}"
    system, root = fsspec.url_to_fs(memory)
    for file in (path for path in (tmp_path / "texts").rglob("*") if path.is_file()):
        system.pipe_file(f"{root}/{file.relative_to(tmp_path)}", file.read_bytes())
    found = urls.match(f"{memory}/texts", (".jsonl", ".json"))
    assert [url.partition("/texts/")[2] for url, _ in found] == [
        "mine/a.jsonl",
        "mine/manifest.json",
    ]
