"""What the GLUE server takes: eleven files, their names, header, order, labels and row counts."""

import json
import zipfile
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.glue import main

# Written out again: official test rows and the labels of each file.
ENTAILED = {"entailment", "not_entailment"}
INFERRED = {"entailment", "neutral", "contradiction"}
OFFICIAL = {
    "CoLA": (1063, {"0", "1"}), "SST-2": (1821, {"0", "1"}), "MRPC": (1725, {"0", "1"}),
    "STS-B": (1379, None), "QQP": (390965, {"0", "1"}), "MNLI-m": (9796, INFERRED),
    "MNLI-mm": (9847, INFERRED), "QNLI": (5463, ENTAILED), "RTE": (3000, ENTAILED),
    "WNLI": (146, {"0", "1"}), "AX": (1104, INFERRED),
}  # fmt: skip


def write(folder: Path, task: str, seed: int, score: float, **files: list[str]) -> Path:
    job = folder / task / "finetune" / f"seed-{seed}"
    job.mkdir(parents=True)
    (job / "all_results.json").write_text(
        json.dumps({"eval_accuracy": score, "eval_pearson": score})
    )
    for suffix, labels in files.items():
        lines = ["index\tprediction", *(f"{i}\t{label}" for i, label in enumerate(labels))]
        name = f"predict_results_{task}{suffix.replace('_', '-').removeprefix('-main')}.txt"
        (job / name).write_text("\n".join(lines) + "\n")
    return job


def read(path: Path) -> dict[str, list[list[str]]]:
    with zipfile.ZipFile(path) as archive:
        return {
            name: [line.split("\t") for line in archive.read(name).decode().split("\n")[:-1]]
            for name in archive.namelist()
        }


def test_eleven_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "rte", 1, 0.6, _main=["entailment"] * 3000)
    write(tmp_path, "rte", 2, 0.7, _main=["not_entailment", "entailment"] * 1500)
    write(tmp_path, "rte", 3, 0.9)  # better, but it predicted nothing
    write(tmp_path, "stsb", 1, 0.5, _main=["-0.125", "5.200", *["2.5"] * 1377])
    write(
        tmp_path, "mnli", 1, 0.5, _main=["neutral"] * 9796, _mm=["entailment"] * 9847,
        _ax=["contradiction"] * 1104,
    )  # fmt: skip
    main(["submission", str(tmp_path), "--output", str(tmp_path / "s.zip")])
    files = read(tmp_path / "s.zip")
    assert set(files) == {f"{name}.tsv" for name in OFFICIAL}
    for name, (rows, labels) in OFFICIAL.items():
        header, *content = files[f"{name}.tsv"]
        assert header == ["index", "prediction"]
        assert [row[0] for row in content] == [str(index) for index in range(rows)]
        if labels:
            assert {row[1] for row in content} <= labels
        else:
            assert all(0 <= float(row[1]) <= 5 for row in content)
    assert [row[1] for row in files["RTE.tsv"][1:4]] == ["not_entailment", "entailment"] * 1 + [
        "not_entailment"
    ]
    assert [row[1] for row in files["STS-B.tsv"][1:4]] == ["0.000", "5.000", "2.500"]
    assert files["MNLI-mm.tsv"][1][1] == "entailment" and files["AX.tsv"][1][1] == "contradiction"
    said = capsys.readouterr().out.splitlines()
    assert "CoLA.tsv: no predictions; 1 for every row" in said
    assert any(line.startswith("RTE.tsv:") and "seed-2" in line for line in said)
    before = (tmp_path / "s.zip").read_bytes()
    main(["submission", str(tmp_path), "--output", str(tmp_path / "s.zip")])
    assert (tmp_path / "s.zip").read_bytes() == before


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["entailment"] * 2999, r"2999 predictions; the server expects 3000 in RTE\.tsv"),
        (["entailment"] * 2999 + ["yes"], r"found the labels \['yes'\], expected entailment"),
    ],
)
def test_wrong_predictions_are_not_zipped(tmp_path: Path, labels: list[str], message: str) -> None:
    write(tmp_path, "rte", 1, 0.6, _main=labels)
    with pytest.raises(FinetuneError, match=message):
        main(["submission", str(tmp_path), "--output", str(tmp_path / "s.zip")])
    assert not list(tmp_path.glob("s.zip*"))


def test_a_diverged_regression_is_not_zipped(tmp_path: Path) -> None:
    write(tmp_path, "stsb", 1, 0.0, _main=["nan"] * 1379)
    with pytest.raises(FinetuneError, match="no number; that run diverged"):
        main(["submission", str(tmp_path), "--output", str(tmp_path / "s.zip")])
