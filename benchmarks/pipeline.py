"""Tokens per second and memory of the data pipeline, against the libraries that it stands on.

    python -m benchmarks.pipeline speed [--megabytes 60] [--repeats 3] [--text FILE.jsonl …]
    python -m benchmarks.pipeline memory [--megabytes 1000 2000]
    python -m benchmarks.pipeline mediawiki DUMP.xml.bz2 [--repeats 5]

`speed`: the pipeline, `encode_batch` alone, Hugging Face's `map(tokenize).map(group_texts)` and
datatrove's tokenizer (where it is installed) on the same texts and tokenizer, each in a process of
its own, interleaved so that a noisy machine treats them alike; the figures are medians with the
spread of wall time, and CPU seconds, which say more where others use the machine. Texts are
docstrings of the installed packages unless files are given.
`memory`: the largest resident memory of any worker, on texts repeated with changes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

FILES = 32  # that the corpus lies in


class Seconds(NamedTuple):
    """What a process and its children took."""

    wall: float
    cpu: float


def texts(given: list[str]) -> Iterator[str]:
    """Texts of JSON lines files, or of the docstrings here; without end, changed in each round."""
    from pipeline.cleaning.clean import docstring_prose, normalise
    from pipeline.config import Source
    from pipeline.sources import plan, read
    from pipeline.sources.records import Document

    kind = {"kind": "jsonl", "paths": given} if given else {"kind": "python-docs"}
    source = Source(**kind)
    files = [file for chunk in plan([source], 1 << 30) for file in chunk.files]
    random.Random(0).shuffle(files)
    found = []
    for file in files:
        for item in read(source, file):
            if isinstance(item, Document):
                text = item.text if given else normalise(docstring_prose(item.text))
                if len(text) > 200:
                    found.append(text)
                    yield text
    rng = random.Random(1)
    while True:
        for text in found:
            words = text.split(" ")
            for _ in range(len(words) // 8 + 1):
                words[rng.randrange(len(words))] = rng.choice(words)
            yield text if rng.random() < 0.1 else " ".join(words)


def corpus(folder: Path, megabytes: int, given: list[str]) -> None:
    """Write about `megabytes` of texts as `folder`/corpus/*.jsonl, unless they are there."""
    if (folder / "corpus").exists():
        return
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


def command(folder: Path, output: Path, workers: int) -> list[str]:
    """The pipeline's command line: cleaning and exact dedup, a tokenizer that is there."""
    config = {
        "output": str(output),
        "sources": [{"kind": "jsonl", "name": "text", "paths": [f"{folder}/corpus/*.jsonl"]}],
        "chunk_bytes": 4_000_000,
        "split": {"valid": 0.01},
        "tokenizer": {"path": str(folder / "tokenizer"), "vocab_size": 16_384},
        "shards": {"train": 8},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    worker = f"--direct_num_workers={workers}"
    return [sys.executable, "-m", "pipeline", "--config", str(path), worker]


def tokenizer(folder: Path) -> None:
    """Train the tokenizer that all use, unless it is there."""
    if not (folder / "tokenizer").exists():
        from pipeline.config import Tokenizer
        from pipeline.tokens.tokenizer import _write, train_bpe

        sample = [text for text, _ in zip(_corpus_texts(folder), range(5000), strict=False)]
        _write(
            train_bpe(lambda: iter(sample), Tokenizer(vocab_size=16_384)), folder / "tokenizer", 128
        )


def _corpus_texts(folder: Path) -> Iterator[str]:
    for path in sorted((folder / "corpus").glob("*.jsonl")):
        for line in path.open():
            yield json.loads(line)["text"]


def run_pipeline(workers: int, only_tokenize: bool = False) -> Callable[[Path], Seconds]:
    """Wall seconds of the command, or of its second half on documents that are clean."""

    def measure(folder: Path) -> Seconds:
        output = folder / f"out-{only_tokenize}"
        if only_tokenize and (output / ".work").exists():
            for path in (*output.glob("*.tar"), output / "manifest.json"):
                path.unlink()
            for name in ("tokens", "shards"):
                shutil.rmtree(output / ".work" / name)
        elif only_tokenize:
            _timed(command(folder, output, workers))
            return measure(folder)
        else:
            shutil.rmtree(output, ignore_errors=True)
        return _timed(command(folder, output, workers))

    return measure


def encode_batch(folder: Path) -> Seconds:
    """Seconds of `encode_batch_fast` alone, texts in memory, on all cores."""
    code = (
        "import sys, time; from pathlib import Path; from tokenizers import Tokenizer;"
        "from benchmarks.pipeline import _corpus_texts; folder = Path(sys.argv[1]);"
        "model = Tokenizer.from_file(str(folder / 'tokenizer/tokenizer.json'));"
        "texts = list(_corpus_texts(folder)); start = time.perf_counter(), time.process_time();"
        "[model.encode_batch_fast(texts[i:i + 1000]) for i in range(0, len(texts), 1000)];"
        "print(time.perf_counter() - start[0], time.process_time() - start[1])"
    )
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true"}
    done = [sys.executable, "-c", code, str(folder)]
    return Seconds(*map(float, subprocess.check_output(done, env=environment).split()))


def hugging_face(folder: Path) -> Seconds:
    """Wall seconds of `load_dataset.map(tokenize).map(group_texts)`, two processes, to disk."""
    code = """
import sys
from pathlib import Path
from datasets import load_dataset
from transformers import PreTrainedTokenizerFast
folder = Path(sys.argv[1])
path = str(folder / "tokenizer/tokenizer.json")
model = PreTrainedTokenizerFast(tokenizer_file=path, eos_token="</s>")
def tokenize(batch):
    ids = model(batch["text"], add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return {"input_ids": [[*row, 2] for row in ids]}
def group(batch):
    flat = [token for row in batch["input_ids"] for token in row]
    return {"input_ids": [[0, *flat[i : i + 126], 2] for i in range(0, len(flat) - 125, 126)]}
files = sorted(map(str, (folder / "corpus").glob("*.jsonl")))
data = load_dataset("json", data_files=files, split="train", cache_dir=str(folder / "cache"))
data = data.map(tokenize, batched=True, num_proc=2, remove_columns=data.column_names)
data.map(group, batched=True, num_proc=2).save_to_disk(str(folder / "hf"), num_proc=2)
"""
    for name in ("cache", "hf"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return _timed([sys.executable, "-c", code, str(folder)])


def datatrove(folder: Path) -> Seconds:
    """Wall seconds of datatrove's DocumentTokenizer with two workers (no rows, no shuffle)."""
    code = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
if __name__ == "__main__":
    folder = sys.argv[1]
    steps = [
        JsonlReader(f"{folder}/corpus"),
        DocumentTokenizer(
            f"{folder}/trove",
            tokenizer_name_or_path=f"{folder}/tokenizer/tokenizer.json",
            eos_token="</s>",
            shuffle_documents=False,
            save_filename="x",
        ),
    ]
    LocalPipelineExecutor(steps, tasks=2, workers=2, logging_dir=f"{folder}/trove-logs").run()
"""
    for name in ("trove", "trove-logs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    script = folder / "trove.py"
    script.write_text(code)
    return _timed([sys.executable, str(script), str(folder)])


def _timed(command: list[str]) -> Seconds:
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[:4]} failed:\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Seconds(time.perf_counter() - start, spent)


def speed(args: argparse.Namespace) -> None:
    """Print a table of medians, spreads and ratios."""
    folder = Path(args.folder)
    corpus(folder, args.megabytes[0], args.text)
    tokenizer(folder)
    measures: dict[str, Callable[[Path], Seconds]] = {
        "encode_batch alone": encode_batch,
        "pipeline": run_pipeline(2),
        "  its tokenize, pack, shard": run_pipeline(2, only_tokenize=True),
        "pipeline, 1 worker": run_pipeline(1),
        "datasets.map.map": hugging_face,
    }
    if importlib.util.find_spec("datatrove"):
        measures["datatrove"] = datatrove
    seconds: dict[str, list[Seconds]] = {name: [] for name in measures}
    for _ in range(args.repeats):
        for name, measure in measures.items():
            seconds[name].append(measure(folder))
            print(f"{name.strip()}: {seconds[name][-1].wall:.1f} s", file=sys.stderr)
    manifest = json.loads((folder / "out-False/manifest.json").read_text())
    kept = sum(split["tokens"] for split in manifest["splits"].values())
    wall = {name: statistics.median(s.wall for s in times) for name, times in seconds.items()}
    cpu = {name: statistics.median(s.cpu for s in times) for name, times in seconds.items()}
    print(f"{args.megabytes[0]} MB, {kept:,} tokens kept, {os.cpu_count()} cores, {args.repeats}x")
    print(
        f"{'':<28}{'seconds':>9}{'spread':>8}{'tokens/s':>11}{'ratio':>7}{'CPU s':>8}{'ratio':>7}"
    )
    for name, times in seconds.items():
        walls = [s.wall for s in times]
        spread = (max(walls) - min(walls)) / wall[name]
        print(
            f"{name:<28}{wall[name]:>9.1f}{100 * spread:>7.0f}%{kept / wall[name]:>11,.0f}"
            f"{wall[name] / wall['pipeline']:>7.2f}{cpu[name]:>8.1f}"
            f"{cpu[name] / cpu['pipeline']:>7.2f}"
        )
    print("ratio: its seconds by the pipeline's; over 1 the pipeline is faster")
    alone, steps = "encode_batch alone", "  its tokenize, pack, shard"
    print(f"encode_batch by tokenize, pack, shard: {wall[alone] / wall[steps]:.2f}, ", end="")
    print(f"CPU {cpu[alone] / cpu[steps]:.2f}")


def memory(args: argparse.Namespace) -> None:
    """Print the largest resident memory of the driver and of any worker, for each size."""
    for megabytes in args.megabytes:
        folder = Path(args.folder) / f"memory-{megabytes}"
        corpus(folder, megabytes, args.text)
        tokenizer(folder)
        shutil.rmtree(folder / "out", ignore_errors=True)
        process = psutil.Popen(command(folder, folder / "out", 2))
        peaks: dict[int, int] = {}
        while process.poll() is None:
            for each in (process, *_children(process)):
                try:
                    peaks[each.pid] = max(peaks.get(each.pid, 0), each.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.2)
        driver = peaks.pop(process.pid)
        worker = max(peaks.values(), default=0)
        print(f"{megabytes} MB: worker {worker / 2**30:.2f} GiB, driver {driver / 2**30:.2f} GiB")


def _children(process: Any) -> list[Any]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def mediawiki(args: argparse.Namespace) -> None:
    """Print how fast dumps become articles, against their markup's parser alone."""
    import mwparserfromhell

    from pipeline.config import Source
    from pipeline.sources import plan, read
    from pipeline.sources.mediawiki import _pages

    source = Source(kind="mediawiki", paths=[args.dump])
    (file,) = (file for chunk in plan([source], 1 << 40) for file in chunk.files)
    pages = [(p.findtext("ns"), p.findtext("revision/text") or "") for p in _pages(file)]
    markup = [t for ns, t in pages if ns == "0" and not t.lower().startswith("#redirect")]
    seconds: dict[str, list[float]] = {"mwparserfromhell.parse": [], "the reader, XML and all": []}
    for _ in range(args.repeats):
        start = time.perf_counter()
        for text in markup:
            mwparserfromhell.parse(text)
        seconds["mwparserfromhell.parse"].append(time.perf_counter() - start)
        start = time.perf_counter()
        list(read(source, file))
        seconds["the reader, XML and all"].append(time.perf_counter() - start)
    size = sum(len(text.encode()) for text in markup) / 1e6
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    for name, times in seconds.items():
        spread = (max(times) - min(times)) / middle[name]
        print(f"{name:<26}{size / middle[name]:>6.2f} MB/s, spread {100 * spread:.0f}%")
    own, ours = middle.values()
    print(f"the reader has {own / ours:.2f} of the parser's speed")


def main() -> None:
    """Choose what to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "memory", "mediawiki"])
    parser.add_argument("dump", nargs="?", help="mediawiki: a dump")
    parser.add_argument("--megabytes", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--text", nargs="*", default=[], help="JSON lines with `text`")
    parser.add_argument("--folder", help="keeps corpus and outputs; a temporary one otherwise")
    args = parser.parse_args()
    args.megabytes = args.megabytes or ([1000, 2000] if args.what == "memory" else [60])
    with tempfile.TemporaryDirectory() as temporary:
        args.folder = args.folder or temporary
        {"speed": speed, "memory": memory, "mediawiki": mediawiki}[args.what](args)


if __name__ == "__main__":
    main()
