"""A random tiny RoBERTa with its tokenizer, and two small tasks for it."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

WORDS = ["red", "blue", "green", "one", "two", "three", "sky", "sea", "tree", "house"]


def write_encoder(folder: Path) -> Path:
    """A masked-LM RoBERTa, 2 layers of width 16, 20 positions; returns `folder`."""
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


def write_tasks(folder: Path) -> Path:
    """`library` (the class is the first word), `rte` (pairs; entailed if the words repeat)."""
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
