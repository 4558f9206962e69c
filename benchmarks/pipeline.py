"""The data pipeline against the libraries that it stands on, and its memory.

    python -m benchmarks.pipeline --only encode|libraries|workers|store|memory|mediawiki

`encode`: the whole stage, and its tokenize-pack-shard steps, against `encode_batch` alone.
`libraries`: the whole stage against Hugging Face's `map(tokenize).map(group_texts)` with two
processes, and datatrove's tokenizer with two workers (`--datatrove`: a Python that has it).
`workers`: two worker processes against one.
`store`: output in an object store (`--url s3://BUCKET/FOLDER`; the environment names its server)
against output in a folder.
`memory`: the largest resident memory of any worker on 1 and 2 GB of texts repeated with changes.
`mediawiki`: a dump to articles against its markup's parser alone (`--dump`).

Commands of one part run in turns, so that a noisy machine treats them alike, each in processes of
its own; the report has medians and the spread from least to most. It is
docs/benchmarks/pipeline.md; parts measured before stay in it. Texts are JSON lines with `text`, or
the docstrings of the installed packages.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import psutil
import torch

from benchmarks.machine import describe
from benchmarks.pipeline_report import table
from benchmarks.pipeline_rivals import Seconds, datatrove, encode_batch, hugging_face, timed
from pipeline.config import Source
from pipeline.config import Tokenizer as TokenizerConfig
from pipeline.sources import plan, read
from pipeline.sources.records import Document
from pretrain.memory import peak_resident_gib

OUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
FILES = 32  # that the corpus lies in


def texts(given: list[str]) -> Iterator[str]:
    """Texts of JSON lines files, or of the docstrings here, shuffled, so that books don't all fall
    to one worker; without end, changed in each further round."""
    source = Source(kind="jsonl", paths=given) if given else Source(kind="python-docs")
    found = [
        item.text
        for chunk in plan([source], 1 << 30)
        for file in chunk.files
        for item in read(source, file)
        if isinstance(item, Document)
    ]
    rng = random.Random(1)
    rng.shuffle(found)
    yield from found
    while True:
        for text in found:
            words = text.split(" ")
            for _ in range(len(words) // 8 + 1):
                words[rng.randrange(len(words))] = rng.choice(words)
            yield text if rng.random() < 0.1 else " ".join(words)


def corpus(folder: Path, megabytes: int, given: list[str]) -> None:
    """Write about `megabytes` of texts and a tokenizer for them, unless they are there."""
    if not (folder / "corpus").exists():
        beside = folder / "corpus.tmp"
        beside.mkdir(parents=True, exist_ok=True)
        source = texts(given)
        number = 0
        for file in range(FILES):
            size = 0
            with (beside / f"{file:03}.jsonl").open("w") as out:
                while size < megabytes * 1e6 / FILES:
                    text = next(source)
                    size += len(text.encode())
                    number += 1
                    out.write(json.dumps({"id": str(number), "text": text}) + "\n")
        beside.rename(folder / "corpus")
    if not (folder / "tokenizer").exists():
        from pipeline.store.folder import Folder
        from pipeline.tokens.tokenizer import write
        from pipeline.tokens.train import train_bpe

        sample = [line for line, _ in zip(corpus_texts(folder), range(2000), strict=False)]
        write(
            train_bpe(lambda: iter(sample), TokenizerConfig(vocab_size=16_384)),
            Folder(str(folder / "tokenizer")),
            128,
        )


def corpus_texts(folder: Path) -> Iterator[str]:
    """The texts of the corpus, in order."""
    for path in sorted((folder / "corpus").glob("*.jsonl")):
        for line in path.open():
            yield json.loads(line)["text"]


def command(
    folder: Path, output: Path | str, workers: int, files: Sequence[str] = ("*",), **more: Any
) -> list[str]:
    """The pipeline's command line: cleaning and exact dedup, a tokenizer that is there."""
    paths = [f"{folder}/corpus/{pattern}.jsonl" for pattern in files]
    config = {
        "output": str(output),
        "sources": [{"kind": "jsonl", "name": "text", "paths": paths}],
        "split": {"valid": 0.01},
        "tokenizer": {"path": str(folder / "tokenizer"), "vocab_size": 16_384},
        "shards": {"train": 8},
        **more,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    worker = f"--direct_num_workers={workers}"
    return [sys.executable, "-m", "pipeline", "--config", str(path), worker]


def whole_stage(folder: Path, workers: int = 2) -> Seconds:
    """The command, from files to manifest."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    return timed(command(folder, folder / "out", workers))


def into_a_store(folder: Path, url: str) -> Seconds:
    """The command with its output in a folder of a store that is removed again."""
    output = f"{url}/{secrets.token_hex(4)}"
    seconds = timed(command(folder, output, 2))
    filesystem, root = fsspec.url_to_fs(output)
    filesystem.rm(root, recursive=True)
    return seconds


def last_steps(folder: Path) -> Seconds:
    """The same command where documents lie cleaned: tokenize, pack, write shards."""
    output = folder / "out-steps"
    if not (output / "manifest.json").exists():
        timed(command(folder, output, 2))
    for path in (*output.glob("*.tar"), output / "manifest.json"):
        path.unlink()
    for name in ("tokens", "shards"):
        shutil.rmtree(output / ".work" / name)
    return timed(command(folder, output, 2))


def in_turns(measures: dict[str, Callable[[], Seconds]], repeats: int) -> dict[str, Any]:
    """`{name: {"wall": [seconds, …], "cpu": […]}}`."""
    found: dict[str, Any] = {name: {"wall": [], "cpu": []} for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            seconds = measure()
            found[name]["wall"].append(round(seconds.wall, 2))
            found[name]["cpu"].append(round(seconds.cpu, 2))
            print(f"{name}: {seconds.wall:.1f} s, CPU {seconds.cpu:.1f} s", file=sys.stderr)
    return found


def memory(folder: Path, megabytes: int, given: list[str]) -> dict[str, float]:
    """GiB: the most that any worker, and the driver, have held; shards of the same size each."""
    corpus(folder, 2000, given)
    files = ["*"] if megabytes == 2000 else ["00*", "01[0-5]"]  # half of them
    output = folder / f"out-{megabytes}"
    shutil.rmtree(output, ignore_errors=True)
    shards = {"train": 8 * megabytes // 1000}
    process = psutil.Popen(command(folder, output, 2, files, shards=shards))
    peaks: dict[int, float] = {}
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in (process, *process.children(recursive=True)):
                peaks[each.pid] = max(peaks.get(each.pid, 0), peak_resident_gib(each.pid))
        time.sleep(0.2)
    driver = peaks.pop(process.pid)
    return {"worker": max(peaks.values()), "driver": driver}


def mediawiki(dump: Path, repeats: int) -> dict[str, Any]:
    """A dump to clean articles, XML and all, and mwparserfromhell on the same markup alone."""
    import mwparserfromhell

    from pipeline.sources.mediawiki import _pages
    from pipeline.sources.wikitext import is_redirect

    source = Source(kind="mediawiki", paths=[str(dump)])
    (file,) = (file for chunk in plan([source], 1 << 40) for file in chunk.files)
    pages = [(page.findtext("ns"), page.findtext("revision/text") or "") for page in _pages(file)]
    markup = [text for space, text in pages if space == "0" and not is_redirect(text)]

    def timed_call(call: Callable[[], Any]) -> Seconds:
        start = time.perf_counter(), time.process_time()
        call()
        return Seconds(time.perf_counter() - start[0], time.process_time() - start[1])

    measures = {
        "mwparserfromhell.parse": lambda: timed_call(
            lambda: [mwparserfromhell.parse(text) for text in markup]
        ),
        "dump to articles": lambda: timed_call(lambda: list(read(source, file))),
    }
    megabytes = sum(len(text.encode()) for text in markup) / 1e6
    return {"megabytes": round(megabytes, 1), "seconds": in_turns(measures, repeats)}


def speed(part: str, folder: Path, megabytes: int, args: argparse.Namespace) -> dict[str, Any]:
    """One of the parts that measure seconds."""
    corpus(folder, megabytes, args.text)
    measures: dict[str, Callable[[], Seconds]] = {"pipeline": lambda: whole_stage(folder)}
    if part == "encode":
        measures["encode_batch"] = lambda: encode_batch(folder)
        measures["tokenize, pack, shard"] = lambda: last_steps(folder)
    elif part == "workers":
        measures["pipeline, 1 worker"] = lambda: whole_stage(folder, 1)
    elif part == "store":
        measures["pipeline into a store"] = lambda: into_a_store(folder, args.url)
    else:
        measures["datasets.map.map"] = lambda: hugging_face(folder)
        if args.datatrove:
            measures["datatrove"] = lambda: datatrove(folder, args.datatrove)
    seconds = in_turns(measures, args.repeats)
    manifest = json.loads((folder / "out/manifest.json").read_text())
    tokens = sum(split["tokens"] for split in manifest["splits"].values())
    return {"megabytes": megabytes, "tokens": tokens, "seconds": seconds}


# Enough to hide the start.
MEGABYTES = {"encode": 100, "libraries": 200, "workers": 200, "store": 200}


def main() -> None:
    """Measure a part and write it into the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    own = ["encode", "libraries", "workers", "memory"]  # need no server, and no dump
    parser.add_argument("--only", nargs="+", choices=[*own, "store", "mediawiki"], default=own)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--megabytes", type=int, nargs="+", choices=[1000, 2000], help="memory")
    parser.add_argument("--text", nargs="*", default=[], help="JSON lines with `text`")
    parser.add_argument("--dump", type=Path, help="mediawiki: a dump")
    parser.add_argument("--url", help="store: a folder in a bucket")
    parser.add_argument("--datatrove", help="a Python that has datatrove")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-pipeline"))
    parser.add_argument("--prepare", action="store_true", help="write the corpora, measure nothing")
    args = parser.parse_args()
    args.megabytes = args.megabytes or [1000, 2000]
    report = OUT / "pipeline.json"
    found = json.loads(report.read_text()) if report.exists() else {}
    for part in args.only:
        folder = (args.folder / f"{MEGABYTES.get(part, 2000)}MB").resolve()
        if args.prepare:
            corpus(folder, MEGABYTES.get(part, 2000), args.text)
            if part == "encode":
                last_steps(folder)  # cleans what it begins from
            continue
        if part == "memory":
            peaks = found.get(part, {}).get("peaks", {})
            for size in args.megabytes:
                peaks[str(size)] = memory(folder, size, args.text)
            result = {"megabytes": " and ".join(peaks), "peaks": peaks}
        elif part == "mediawiki":
            result = mediawiki(args.dump, args.repeats)
        else:
            result = speed(part, folder, MEGABYTES[part], args)
        machine = describe(torch.device("cpu"))
        found[part] = {"machine": machine, "repeats": args.repeats, **result}
    if not args.prepare:
        report.write_text(json.dumps(found, indent=1) + "\n")
        report.with_suffix(".md").write_text(table(found))


if __name__ == "__main__":
    main()
