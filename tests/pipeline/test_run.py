import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from pipeline import provenance
from pipeline.__main__ import main
from pipeline.config import Cleaning, Config, Shards, Source, Split
from pipeline.errors import PipelineError
from pipeline.report.inspect import inspect
from pipeline.report.verify import problems, verify
from pipeline.store.folder import Folder
from tests.pipeline.folders import IN_MEMORY, contents, data, make


def test_counts_rows_and_bytes_on_two_layouts_of_workers(
    make_config: Callable[..., Config], finished: Path
) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    total = manifest["counts"]["total"]
    assert total["read"] == 360
    assert total["too_short"] == 6
    assert total["duplicate"] == 11  # twelve copies of one text
    assert total["train"] + total["valid"] == 343
    assert problems(Folder(str(finished))) == []

    tokenizer_tokens = 0
    for split, entry in manifest["splits"].items():
        urls = [str(finished / shard["name"]) for shard in entry["shards"]]
        rows = np.concatenate(
            [s["tokens.npy"] for s in webdataset.WebDataset(urls, shardshuffle=False).decode()]
        )
        assert rows.shape == (entry["sequences"], 32)
        separators = (rows[:, 1:-1] == 2).sum()
        gaps = entry["documents"] - len(urls)
        assert gaps - len(urls) <= separators <= gaps, split
        tokenizer_tokens = max(tokenizer_tokens, int(rows.max()) + 1)
    assert tokenizer_tokens <= manifest["vocab_size"] - 1  # <mask> never stands in the data

    other = make_config()
    make(other, "--direct_num_workers=1")
    assert data(Path(other.output)) == data(finished)


def test_the_manifest_tells_how_the_data_came_about(finished: Path, tmp_path: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["provenance"].keys() == {"commit", "clean", "command", "versions"}
    assert manifest["provenance"]["command"] == provenance.command_line(sys.orig_argv)
    assert manifest["provenance"]["versions"]["numpy"] == np.__version__
    line = f"made by {manifest['provenance']['command']}"
    assert line in inspect(Folder(str(finished)), None, 1)
    older = tmp_path / "data"
    shutil.copytree(finished, older)
    (older / "manifest.json").write_text(json.dumps(provenance.without(manifest)))
    assert "made by" not in inspect(Folder(str(older)), None, 1)
    assert problems(Folder(str(older))) == []


def test_commands_end_with_the_documented_exit_codes(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(finished)]) == 0
    assert main(["verify", str(tmp_path)]) == 2
    assert f"{tmp_path}/manifest.json: missing" in capsys.readouterr().err
    damaged = tmp_path / "damaged"
    shutil.copytree(finished, damaged)
    (damaged / "train-00001-of-00003.tar").unlink()
    assert main(["verify", str(damaged)]) == 1
    assert main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_has_enough_ends_inspect_quietly(finished: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` does when it has its lines
    command = [sys.executable, "-m", "pipeline", "inspect", str(finished)]
    picture = ["--picture", str(tmp_path / "picture.png")]
    done = subprocess.run([*command, *picture], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_terminal_of_ascii_gets_replacement_characters(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Straße"
    folder.symlink_to(finished)
    for options in (["inspect", f"--picture={tmp_path}/picture.png"], ["verify"]):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
        assert main([*options, str(folder)]) == 0
        sys.stdout.flush()
        assert b"Stra?e: " in raw.getvalue()


def test_a_finished_folder_is_found_without_loading_beam(
    make_config: Callable[..., Config], finished: Path
) -> None:
    config = make_config(output=str(finished))
    code = (
        "import sys, pickle; from pipeline.run import run;"
        "run(pickle.load(sys.stdin.buffer), [], False, lambda *_: None);"
        "print(*{'apache_beam', 'torch'} & {*sys.modules})"
    )
    before = contents(finished)
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(config), capture_output=True, check=True
    )
    assert done.stdout.split() == []
    assert contents(finished) == before


def test_shards_are_even_to_within_a_block(make_config: Callable[..., Config]) -> None:
    config = make_config(shards=Shards(train=6, block_sequences=16))
    manifest = make(config, IN_MEMORY)
    sizes = [shard["sequences"] for shard in manifest["splits"]["train"]["shards"]]
    assert max(sizes) - min(sizes) <= 16
    assert min(sizes) > 30


def test_books_longer_than_the_limit_are_in_the_data_and_in_its_balance(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    rng = random.Random(5)
    words = [*"abcdefghijklm", "mill", "river", "lock", "ferry", "stone", "garden", "letter"]
    for number in range(12):
        lines = (" ".join(rng.choices(words, k=12)).capitalize() + "." for _ in range(60))
        (tmp_path / f"{number}.txt").write_text("\n\n".join(lines))
    books = Source(kind="text", name="books", paths=[f"{tmp_path}/*.txt"])
    cleaning = Cleaning(max_characters=1000)
    config = make_config(sources=[books], cleaning=cleaning, split=Split(valid=0.3))
    manifest = make(config, IN_MEMORY)
    total = manifest["counts"]["total"]
    assert (total["read"], total["cut"]) == (12, 12)
    assert total["further_parts"] >= 12
    assert total["train"] + total["valid"] == 12 + total["further_parts"]
    assert problems(Folder(config.output)) == []
    report = inspect(Folder(config.output), tmp_path / "picture.png", 1)
    assert (
        f"12 documents read + {total['further_parts']} further parts of 12 that were cut" in report
    )


@pytest.mark.long
def test_a_source_of_weight_below_one_gives_a_sample(make_config: Callable[..., Config]) -> None:
    config = make_config()
    config.sources[0].weight = 0.4
    total = make(config, IN_MEMORY)["counts"]["total"]
    kept = total["train"] + total["valid"] + total["duplicate"]
    assert total["not_sampled"] + kept == 354
    assert abs(total["not_sampled"] / 354 - 0.6) < 0.1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no document is left"),
        ("Once upon a time. " * 9, "1 document is left"),
        (f"{'a' * 60}\n\n{'b' * 60}", "too few tokens for one sequence of 32"),
    ],
)
def test_too_small_a_corpus_is_told(
    make_config: Callable[..., Config], tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "a.txt").write_text(text)
    source = Source(kind="text", paths=[str(tmp_path / "a.txt")], documents="blank-lines")
    with pytest.raises(PipelineError, match=words):
        make(make_config(sources=[source]), IN_MEMORY)
    assert not (tmp_path / "data/manifest.json").exists()


def test_a_small_corpus_has_a_validation_split_and_fewer_shards(
    make_config: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(0)
    words = ["river", "garden", "letter", "mask", "layer", "token"]
    texts = [" ".join(rng.choices(words, k=80)) for _ in range(30)]
    lines = [json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    source = Source(kind="jsonl", paths=[str(tmp_path / "a.jsonl")])
    changes = {"sources": [source], "split": Split(), "shards": Shards(train=64, valid=2)}
    manifests = []
    with caplog.at_level("INFO"):
        for folder, chunk_bytes in (("one", 10**6), ("many", 500)):
            config = make_config(tmp_path / folder, chunk_bytes=chunk_bytes, **changes)
            manifests.append(make(config, IN_MEMORY))
    train, valid = manifests[0]["splits"]["train"], manifests[0]["splits"]["valid"]
    assert 1 <= valid["documents"] <= 15
    assert valid["sequences"] > 0
    assert len(valid["shards"]) == 1
    assert 1 < len(train["shards"]) < 30
    assert train["documents"] + valid["documents"] == 30
    assert "shards.train: " in caplog.text
    assert manifests[0]["splits"] == manifests[1]["splits"]  # whatever the chunks


def test_an_output_that_cannot_be_written_is_told(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match="can't be written"):
        make(make_config(output=str(tmp_path / "file" / "data")), IN_MEMORY)


@pytest.mark.long
def test_a_full_disk_is_told_and_the_run_goes_on_afterwards(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    config = make_config()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"output": config.output, **config.content()}))
    # the operating system refuses any file over 8 kB, as it would a file on a full disk
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000));"
        "from pipeline.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--config", str(path), "--direct_num_workers=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "can't be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path(config.output).rglob("*.tmp"))
    make(config, IN_MEMORY)
    assert data(tmp_path / "data") == data(finished)


def test_a_folder_of_version_1_is_verified_and_repaired_as_it_was(
    make_config: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "data")
    file = tmp_path / "data/manifest.json"
    manifest = json.loads(file.read_text())
    size = manifest["vocab_size"]
    ids = {"cls": 0, "sep": 2, "pad": 1, "unk": 3, "mask": size - 1}
    assert (manifest["version"], manifest["special_tokens"]) == (2, ids)
    former = {k: v for k, v in manifest.items() if k != "special_tokens"} | {"version": 1}
    raw = (json.dumps(former, indent=1) + "\n").encode()
    file.write_bytes(raw)
    assert verify(Folder(str(tmp_path / "data"))) == 0
    lost = next((tmp_path / "data").glob("train-*.tar"))
    content = lost.read_bytes()
    lost.unlink()
    make(make_config(tmp_path / "data"), IN_MEMORY)
    assert lost.read_bytes() == content
    assert file.read_bytes() == raw


@pytest.mark.parametrize("change", [{"mask": 0}, {"mask": 10**6}, {"mask": True}, {"mask": None}])
def test_special_tokens_that_cannot_be_are_named(
    finished: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    shutil.copytree(finished, tmp_path / "data")
    file = tmp_path / "data/manifest.json"
    manifest = json.loads(file.read_text())
    manifest["special_tokens"] |= change
    file.write_text(json.dumps(manifest))
    with pytest.raises(PipelineError, match=r"manifest\.json: special_tokens is .*five different"):
        verify(Folder(str(tmp_path / "data")))
