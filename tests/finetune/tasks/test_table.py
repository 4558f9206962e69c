"""The table against the real files: every split reads to its official size, labels as named."""

from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.tasks import GLUE, TASKS, DataFlags, find_task, read_split
from finetune.tasks.load import task_folder

# Files of which only a part is at hand (their README says so); the rest must be whole.
PARTS = {("mnli", "train"), ("qnli", "train"), ("qqp", "train"), ("qqp", "dev")}
SPLITS = [
    (name, part, file, part.startswith("test"))
    for name, task in TASKS.items()
    for part, file in [
        ("train", task.train),
        *((f"dev{suffix}", file) for suffix, file in task.dev.items()),
        *((f"test{suffix}", file) for suffix, file in task.test.items()),
    ]
]


@pytest.mark.parametrize(
    ("name", "part", "file", "is_test"), SPLITS, ids=[f"{n}-{p}" for n, p, _, _ in SPLITS]
)
def test_a_split_has_its_official_size_and_labels(
    data_dir: Path, name: str, part: str, file: object, is_test: bool
) -> None:
    task = TASKS[name]
    paths = [task_folder(data_dir, task) / option for option in file.names]  # type: ignore[attr-defined]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        pytest.skip(f"no {paths[0]}")
    labels = task.labels
    if labels is None:
        labels = tuple(sorted(_labels_by_hand(path)))
    split = read_split(path, task, labels, is_test)
    if (name, part) not in PARTS:
        assert len(split.texts) == file.rows  # type: ignore[attr-defined]
    if not is_test:
        assert split.targets is not None and len(split.targets) == len(split.texts)
    if split.targets and not task.is_regression:
        found = {
            index
            for target in split.targets
            for index in (target if isinstance(target, list) else [target])
        }
        assert found <= set(range(len(labels)))
        if part == "train":
            assert found == set(range(len(labels)))


def _labels_by_hand(path: Path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    if "TREC" in path.name:
        return {line.split(" ")[0] for line in lines}
    return {line.split("\t")[1] for line in lines if line.strip()}


def test_glue_is_the_nine_and_their_eleven_submission_files() -> None:
    assert list(GLUE) == ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]
    files = [file for task in GLUE.values() for file in task.test.values()]
    rows = {file.submission: file.rows for file in files}
    assert rows == {
        "CoLA.tsv": 1063, "SST-2.tsv": 1821, "MRPC.tsv": 1725, "STS-B.tsv": 1379,
        "QQP.tsv": 390965, "MNLI-m.tsv": 9796, "MNLI-mm.tsv": 9847, "QNLI.tsv": 5463,
        "RTE.tsv": 3000, "WNLI.tsv": 146, "AX.tsv": 1104,
    }  # fmt: skip
    for task in GLUE.values():
        assert task.baseline in (task.labels or ("2.500",))


def test_misspelt_tasks_get_the_nearest_names() -> None:
    with pytest.raises(FinetuneError, match="Did you mean mnli"):
        find_task("mnil")
    with pytest.raises(FinetuneError, match="Did you mean mrpc"):
        DataFlags().task("MRPC")
    with pytest.raises(FinetuneError, match="--task_name mnli --do_predict"):
        find_task("ax")
