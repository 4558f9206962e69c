"""A random tiny RoBERTa with its tokenizer, small tasks, and masks; no downloads."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from finetune.masks import MaskConfig

# A tiny model on one thread is faster than on many, and the tests share the machine.
torch.set_num_threads(1)

WORDS = ["red", "blue", "green", "one", "two", "three", "sky", "sea", "tree", "house"]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets beside the repository, where there are any."""
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a masked-LM RoBERTa, 2 layers of width 16, 20 positions."""
    folder = tmp_path_factory.mktemp("model")
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {word: index for index, word in enumerate([*specials, *WORDS, "<mask>"])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=22,
        type_vocab_size=1,
        initializer_range=0.2,
    )
    RobertaForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`library` (the class is the first word) and `rte` (pairs; entailed if the words repeat)."""
    folder = tmp_path_factory.mktemp("tasks")
    draw = np.random.default_rng(0)

    def sentence() -> list[str]:
        return [str(word) for word in draw.choice(WORDS[3:], draw.integers(1, 8))]

    for name in ("library", "RTE"):
        (folder / name).mkdir()
    for split, count in (("train", 96), ("dev", 40), ("test", 10)):
        library, rte = ["sentence\tlabel"], ["index\tsentence1\tsentence2\tlabel"]
        for index in range(count):
            label = str(draw.choice(WORDS[:3]))
            library.append(" ".join([label, *sentence()]) + f"\tlib-{label}")
            first = sentence()
            same = bool(draw.integers(2))
            second = first if same else sentence()
            row = [str(index), " ".join(first), " ".join(second)]
            rte.append("\t".join([*row, "entailment" if same else "not_entailment"]))
        if split == "test":
            library = [line.rpartition("\t")[0] for line in library]
            rte = [line.rpartition("\t")[0] for line in rte]
        (folder / "library" / f"{split}.tsv").write_text("\n".join(library) + "\n")
        (folder / "RTE" / f"{split}.tsv").write_text("\n".join(rte) + "\n")
    return folder


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
