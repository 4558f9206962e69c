"""What other libraries take for the pipeline's work, on the same texts and tokenizer.

Each in processes of its own; `folder` holds `corpus/*.jsonl` and `tokenizer/`.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple


class Seconds(NamedTuple):
    """What a command and the processes that it started took."""

    wall: float
    cpu: float


def encode_batch(folder: Path) -> Seconds:
    """`encode_batch_fast` alone on all cores, texts in memory; reading them is not counted."""
    code = """
import json, sys, time
from pathlib import Path
from tokenizers import Tokenizer
folder = Path(sys.argv[1])
model = Tokenizer.from_file(str(folder / "tokenizer/tokenizer.json"))
files = sorted((folder / "corpus").glob("*.jsonl"))
texts = [json.loads(line)["text"] for file in files for line in file.open()]
start = time.perf_counter(), time.process_time()
for i in range(0, len(texts), 1000):
    model.encode_batch_fast(texts[i : i + 1000], add_special_tokens=False)
print(time.perf_counter() - start[0], time.process_time() - start[1])
"""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true"}
    done = [sys.executable, "-c", code, str(folder)]
    return Seconds(*map(float, subprocess.check_output(done, env=environment).split()))


def hugging_face(folder: Path) -> Seconds:
    """`load_dataset.map(tokenize).map(group_texts)`, two processes, saved to disk."""
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
    return timed([sys.executable, "-c", code, str(folder)])


def datatrove(folder: Path, python: str) -> Seconds:
    """datatrove's DocumentTokenizer with two workers: tokens in files, no rows, no shuffle."""
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
    return timed([python, str(script), str(folder)])


def timed(command: list[str]) -> Seconds:
    """Run a command that must not fail."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[:4]} failed:\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Seconds(time.perf_counter() - start, spent)
