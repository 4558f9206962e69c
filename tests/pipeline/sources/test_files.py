from pathlib import Path

from pipeline.config import Source
from pipeline.sources import plan, read
from pipeline.sources.files import blocks, lines, matching


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    content = "\n".join("x" * (i % 97) for i in range(40_000)).encode()
    (tmp_path / "a").write_bytes(content)
    assert b"".join(blocks(str(tmp_path / "a"))) == content
    assert list(lines(str(tmp_path / "a"))) == content.splitlines(keepends=True)


def test_files_of_one_name_are_named_from_where_their_paths_part(tmp_path: Path) -> None:
    for name in ("AA/wiki_00", "AB/wiki_00", "AA/wiki_01"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"of {name}")
    source = Source(kind="text", name="w", paths=[f"{tmp_path}/*/wiki_*"])
    found = {item.id: item for c in plan([source], 10) for f in c.files for item in read(source, f)}  # type: ignore[union-attr]
    assert set(found) == {"w/AA/wiki_00", "w/AB/wiki_00", "w/wiki_01"}
    backwards = Source(kind="text", name="w", paths=[f"{tmp_path}/AB", f"{tmp_path}/AA"])
    assert {file.name for file in matching(backwards)} == set(found)


def test_a_file_that_two_paths_name_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    source = Source(kind="text", paths=[f"{tmp_path}/a.txt", f"{tmp_path}/./*.txt", str(tmp_path)])
    assert [file.name for file in matching(source)] == ["text/a.txt"]
