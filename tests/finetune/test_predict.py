"""The command line of `finetune.predict`: one model, a mask, many masks, an ensemble; bad input."""

import gzip
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune.errors import FinetuneError
from finetune.glue import main as glue
from finetune.masks.apply import load_masked
from finetune.masks.folder import MaskFolder
from finetune.predict import main
from finetune.serving.lines import read_requests
from tests.finetune.conftest import TEXTS, answers_of


def expected_logits(folder: Path, backbone: Path) -> list[torch.Tensor]:
    """One text at a time through the merged model: no grouping, no batching, no padding."""
    model = load_masked(MaskFolder.open(folder), str(backbone))
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    rows = []
    for line in TEXTS:
        inputs = tokenizer(*line.split("\t"), return_tensors="pt")
        with torch.no_grad():
            rows.append(model(**inputs).logits[0])
    return rows


def test_many_masks_each_on_every_line(
    tiny_model: Path,
    texts: Path,
    make_mask: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    tasks = ("one", "two", "score", "tags")
    folders = [make_mask(task, seed) for seed, task in enumerate(tasks)]
    out = answers_of(capsys, texts, "--model_name_or_path", tiny_model, "--masks", *folders)
    assert [(a["line"], a["task"]) for a in out] == [(n, t) for n in (1, 2, 3) for t in tasks]
    by_task = {task: [a for a in out if a["task"] == task] for task in tasks}
    for folder, task in zip(folders, tasks, strict=True):
        for answer, logits in zip(by_task[task], expected_logits(folder, tiny_model), strict=True):
            if task == "score":
                assert answer["score"] == pytest.approx(logits.item(), abs=1e-4)
            elif task != "tags":
                values = list(answer["probabilities"].values())
                assert values == pytest.approx(logits.softmax(0).tolist(), abs=1e-5)
                assert answer["label"] == list(answer["probabilities"])[int(logits.argmax())]
    tags = by_task["tags"]
    assert tags[0]["words"] == ["red", "sky", "one"] and len(tags[0]["labels"]) == 3
    first = expected_logits(folders[3], tiny_model)[0].argmax(dim=1)  # <s> red sky one </s>
    assert tags[0]["labels"] == [["O", "B", "I"][i] for i in first[1:4]]


def test_a_copy_of_the_two_files_that_are_pushed_answers_alike(
    tiny_model: Path,
    texts: Path,
    tmp_path: Path,
    make_mask: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_mask("one")
    expected = answers_of(capsys, texts, "--model_name_or_path", tiny_model, "--masks", folder)
    (tmp_path / "mask").mkdir()
    for file in folder.glob("adapter_*"):
        shutil.copy(file, tmp_path / "mask")
    encoder = shutil.copytree(tiny_model, tmp_path / "encoder")
    command = ("--model_name_or_path", encoder, "--masks", tmp_path / "mask")
    assert answers_of(capsys, texts, *command) == expected
    base = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
    model = PeftModel.from_pretrained(base, str(tmp_path / "mask")).eval()
    inputs = AutoTokenizer.from_pretrained(encoder)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        probabilities = model(**inputs).logits[0].softmax(0).tolist()
    assert list(expected[0]["probabilities"].values()) == pytest.approx(probabilities, abs=1e-5)


def test_json_lines_name_their_task(
    tiny_model: Path,
    make_mask: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = [make_mask(task) for task in ("one", "tags")]
    lines = [
        {"text": "red sky", "task": "one"},
        {"text": ["blue", "sea"], "task": "tags"},
        {"text": "tree", "pair": "house", "task": "one"},
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    out = answers_of(capsys, "--model_name_or_path", tiny_model, "--masks", *folders)
    assert [(a["line"], a["task"]) for a in out] == [(1, "one"), (2, "tags"), (3, "one")]


def test_a_merged_mask_answers_as_the_mask(
    tiny_model: Path,
    texts: Path,
    make_mask: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from finetune.maskfile import main as maskfile

    folder = make_mask("two", 4)
    masked = answers_of(capsys, texts, "--model_name_or_path", tiny_model, "--masks", folder)
    command = ["merge", str(folder), str(tmp_path / "plain"), "--model_name_or_path"]
    maskfile([*command, str(tiny_model)])
    plain = answers_of(capsys, texts, "--model_name_or_path", tmp_path / "plain")
    assert [a["probabilities"] for a in plain] == [a["probabilities"] for a in masked]
    assert {a["task"] for a in plain} == {"plain"}


def test_a_finetuned_model_answers_for_its_task(
    tiny_model: Path,
    tiny_tasks: Path,
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:

    words = ["--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)]
    glue([*words, *("--output_dir", str(tmp_path), "--task_name", "library", "--max_steps", "1")])
    capsys.readouterr()
    out = answers_of(capsys, texts, "--model_name_or_path", next(tmp_path.glob("library/*/seed-*")))
    assert {a["task"] for a in out} == {"library"}


@pytest.mark.parametrize("how", ["label", "probability", "logit"])
def test_ensemble(
    tiny_model: Path,
    texts: Path,
    make_mask: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    folders = [make_mask("two", seed, name=f"s{seed}") for seed in (1, 2, 3)]
    command = (texts, "--model_name_or_path", tiny_model, "--ensemble", how, "--masks", *folders)
    out = answers_of(capsys, *command)
    assert [a["line"] for a in out] == [1, 2, 3]
    members = [expected_logits(folder, tiny_model) for folder in folders]
    for row, answer in enumerate(out):
        logits = torch.stack([member[row] for member in members])
        labels = [["a", "b", "c"][i] for i in logits.argmax(dim=1)]
        if how == "label":
            assert answer["votes"] == {name: labels.count(name) for name in "abc"}
            assert answer["label"] == max(labels, key=labels.count)
        else:
            mean = logits.mean(0).softmax(0) if how == "logit" else logits.softmax(1).mean(0)
            values = list(answer["probabilities"].values())
            assert values == pytest.approx(mean.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 3}', r"line 2: text is 3, expected a string"),
        ('{"text": "red", "tsk": "one"}', r"line 2: unknown key 'tsk'"),
        ('{"text": "red"', r"line 2: Expecting"),
        (
            '{"text": "red", "task": "ner"}',
            r"in\.txt, line 2: task: found 'ner', expected one",
        ),
        ('{"text": " "}', r"in\.txt, line 2: text: found no words"),
        (
            r'{"text": "red \ud83d"}',
            r"line 2: text: found .ud83d, half a surrogate pair, after",
        ),
        (r'{"text": ["red", "\udc00"]}', r"line 2: text: found .udc00, half a surrogate pair"),
        (r'{"text": "red", "pair": "\udc00"}', r"line 2: pair: found .udc00, half a surrogate"),
        (r'{"text": "red", "task": "\udc00"}', r"line 2: task: found '.udc00', expected one"),
        (r'{"text": "red", "\udc00": 1}', r"line 2: unknown key '.udc00'"),
        ('[{"text": "red"}]', r"line 2: found a list, expected a JSON object a line"),
        ('{"text": ' + "[" * 100_000, r"line 2: nested too deeply"),
        ("caf\udce9", r"line 2, byte 4: found 0xe9 after 'caf', expected UTF-8"),
    ],
)
def test_bad_lines_are_named(
    tiny_model: Path, make_mask: Callable[..., Path], tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(f"red\n{line}\nblue\n".encode("utf-8", "surrogateescape"))
    command = [str(path), "--model_name_or_path", str(tiny_model), "--masks", str(make_mask("one"))]
    with pytest.raises(FinetuneError, match=message):
        main(command)


ODD = {
    "mark.jsonl": '{"text": "red sky"}\r\n\r\n  {"text": "blue"}\r\n'.encode("utf-8-sig"),
    "utf-16.txt": "red sky\n\nblue\n".encode("utf-16"),
    "joined.txt": b"red sky\n \n" + '{"text": "blue"}'.encode("utf-8-sig"),
    "packed.gz": gzip.compress(b"red sky\n\t\nblue"),
    "old-mac.txt": b"red sky\r\rblue\r",
}


def test_odd_files_are_read_and_blank_lines_have_no_answer(tmp_path: Path) -> None:
    for name, content in ODD.items():
        (tmp_path / name).write_bytes(content)
    found = list(read_requests([tmp_path / name for name in ODD]))
    assert [line.request.text for line in found] == ["red sky", "blue"] * len(ODD)
    assert [line.number for line in found] == [
        3 * file + line for file in range(len(ODD)) for line in (1, 3)
    ]
    assert found[3].where == f"{tmp_path / 'utf-16.txt'}, line 3"


def test_a_blank_line_has_no_answer_but_counts(
    tiny_model: Path,
    make_mask: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "in.txt"
    path.write_text("\nred\n\nblue\n")
    command = (path, "--model_name_or_path", tiny_model, "--masks", make_mask("one"))
    assert [answer["line"] for answer in answers_of(capsys, *command)] == [2, 4]


def test_a_list_is_no_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text('[\n{"text": "red"}\n]\n')
    with pytest.raises(FinetuneError, match=r"in\.json, line 1: found '\[', expected a JSON"):
        list(read_requests([path]))


def test_what_cannot_be_loaded(
    tiny_model: Path, texts: Path, make_mask: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_mask("one")
    model = ["--model_name_or_path", str(tiny_model)]
    with pytest.raises(FinetuneError, match="a RobertaForMaskedLM, expected a finetuned model"):
        main([str(texts), *model])
    with pytest.raises(FinetuneError, match=r"--base_model_name_or_path x: .* is no LoRA"):
        main([str(texts), *model, "--base_model_name_or_path", "x"])
    with pytest.raises(FinetuneError, match="a file, expected a folder"):
        main([*model, "--masks", str(folder), str(texts)])
    with pytest.raises(FinetuneError, match=r"no adapter_config\.json, so not a mask"):
        main([str(texts), *model, "--masks", str(tmp_path)])
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(FinetuneError, match=r"adapter_model\.safetensors: .*cut off"):
        main([str(texts), *model, "--masks", str(folder)])


def test_a_user_error_is_one_line_without_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "finetune.predict", "--masks", str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("finetune.predict: ") and done.stdout == ""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_fp32_on_a_processor(
    tiny_model: Path,
    texts: Path,
    tmp_path: Path,
    dtype: torch.dtype,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=3)
    model.to(dtype).save_pretrained(tmp_path / "half")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(tmp_path / "half")
    answers = answers_of(
        capsys, texts, "--model_name_or_path", tmp_path / "half", "--device", "cpu"
    )
    model.float().eval()
    for answer, line in zip(answers, TEXTS, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(*line.split("\t"), return_tensors="pt")).logits[0]
        found = torch.tensor(list(answer["probabilities"].values()))
        torch.testing.assert_close(found, logits.softmax(0), atol=2e-6, rtol=0)
