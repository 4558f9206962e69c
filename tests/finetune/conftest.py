"""A random tiny RoBERTa with its tokenizer, small tasks, and masks; no downloads."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from finetune.masks import MaskConfig
from finetune.predict import main as predict
from tests.small_tasks import write_encoder, write_tasks

TEXTS = ["red sky one", "blue sea\ttree tree house", "green"]

# A tiny model on one thread is faster than on many, and the tests share the machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets beside the repository, where there are any."""
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


MASK_LABELS = {"one": ["no", "yes"], "two": ["a", "b", "c"], "score": [], "tags": ["O", "B", "I"]}


def shuffle_scores(model: torch.nn.Module, seed: int) -> None:
    """Stand-in for training: other bits than the initial ones, a share of about 10 % zeros."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if ".mask_scores." in name:
            drawn = torch.rand(value.shape, generator=generator)
            value.data = torch.where(drawn > 0.1, 0.02, 0.0)


@pytest.fixture
def make_mask(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Folder of a mask for one of LABELS' tasks on `tiny_model`, with a head from `seed`."""

    def make(task: str, seed: int = 0, name: str | None = None, **settings: object) -> Path:
        labels = MASK_LABELS[task]
        auto = (
            AutoModelForTokenClassification
            if task == "tags"
            else AutoModelForSequenceClassification
        )
        torch.manual_seed(seed)
        base = auto.from_pretrained(tiny_model, num_labels=max(1, len(labels)))
        for parameter in base.classifier.parameters():
            torch.nn.init.normal_(parameter)
        model = get_peft_model(
            base,
            MaskConfig(task=task, labels=labels, **settings),
        )
        shuffle_scores(model, seed)
        folder = tmp_path / (name or task)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def answers_of(capsys: pytest.CaptureFixture[str], *command: object) -> list[dict]:
    """What `finetune.predict` prints for a command line."""
    capsys.readouterr()
    predict([str(word) for word in command])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
