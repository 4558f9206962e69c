import json
from pathlib import Path

import datasets
import pytest

from pipeline.config import Source
from pipeline.errors import BadFile, PipelineError
from pipeline.sources import plan, read
from pipeline.sources.records import Document

TEXTS = [f"text number {i}" for i in range(30)]


def _texts(source: Source) -> list[str]:
    found = [item for c in plan([source], 100) for file in c.files for item in read(source, file)]
    ids = [item.id for item in found if isinstance(item, Document)]
    assert len(set(ids)) == len(ids)
    return [item.text for item in found if isinstance(item, Document)]


def test_a_folder_that_save_to_disk_wrote(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"text": TEXTS})
    data.save_to_disk(tmp_path / "plain")
    datasets.DatasetDict(test=data).save_to_disk(tmp_path / "splits")
    assert _texts(Source(kind="huggingface", paths=[str(tmp_path / "plain")])) == TEXTS
    split = Source(kind="huggingface", paths=[str(tmp_path / "splits")], split="test")
    assert _texts(split) == TEXTS


def test_a_folder_of_data_files_is_streamed_by_shard(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(3):
        lines = [json.dumps({"text": text}) for text in TEXTS[number * 10 : number * 10 + 10]]
        (tmp_path / "data" / f"train-{number}.jsonl").write_text("\n".join(lines))
    source = Source(kind="huggingface", paths=[str(tmp_path / "data")])
    assert len(plan([source], 100)) == 3
    assert _texts(source) == TEXTS


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"body": TEXTS})
    data.save_to_disk(tmp_path / "plain")
    with pytest.raises(BadFile, match=r"no column 'text'.*it has body"):
        _texts(Source(kind="huggingface", paths=[str(tmp_path / "plain")]))
    with pytest.raises(PipelineError, match=r"absent.*can't be loaded"):
        _texts(Source(kind="huggingface", paths=[str(tmp_path / "absent")]))


def test_data_sets_of_one_name_and_ids_that_say_nothing(tmp_path: Path) -> None:
    for folder in ("ann", "bob"):
        data = datasets.Dataset.from_dict({"id": [None, *["0"] * 29], "text": TEXTS})
        data.save_to_disk(tmp_path / folder / "corpus")
    paths = [str(tmp_path / folder / "corpus") for folder in ("ann", "bob")]
    source = Source(kind="huggingface", name="h", paths=[*paths, paths[0]])
    found = [i for c in plan([source], 100) for file in c.files for i in read(source, file)]
    ids = [item.id for item in found if isinstance(item, Document)]
    assert len(ids) == 60
    assert {key.split(":")[0] for key in ids} == {"h/ann/corpus", "h/bob/corpus"}
