"""Each method on each family of transformers at a tiny size, and the table of what went well."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from finetune.choices import MATRICES
from finetune.errors import FinetuneError
from finetune.jobs.heads import load_with_head
from finetune.jobs.load import load_model
from finetune.jobs.methods import METHODS, Head
from finetune.masks.architectures import find_blocks, split_role
from finetune.masks.folder import MaskFolder
from finetune.serving.resident import Resident
from finetune.tasks import TASKS
from finetune.tasks.encode import Backbone

DECODERS = (
    *("gemma", "gemma2", "gpt2", "gpt_neox", "llama", "mistral", "modernbert-decoder"),
    *("olmo2", "opt", "phi3", "qwen2", "qwen3"),
)
# Taken where a family's configuration has a field of that name.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer"), 2),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_heads", "n_head"), 2),
    **dict.fromkeys(("num_self_attention_heads", "num_cross_attention_heads"), 2),
    **dict.fromkeys(("hidden_size", "d_model", "emb_dim", "dim", "n_embd", "embedding_size"), 32),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "n_inner", "d_inner"), 64),
    **dict.fromkeys(("head_dim", "d_head"), 16),
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "init_std": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OWN_SIZES: dict[str, dict[str, Any]] = {
    "funnel": {"block_sizes": [1, 1], "block_repeats": [1, 1]},
    "layoutlm": {"max_2d_position_embeddings": 64},
    "longformer": {"attention_window": [4, 4]},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 32},
    "mobilebert": {"intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    "perceiver": {"d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 2},
    "reformer": {
        "attn_layers": ["local", "local"],
        "axial_pos_embds": False,
        "attention_head_size": 16,
        "local_attn_chunk_length": 8,
        "feed_forward_size": 64,
    },
    "roc_bert": {"enable_shape": False, "enable_pronunciation": False},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}
IMAGES = "takes images beside the text"
REASONS = {"modernvbert": IMAGES, "ultravbert": IMAGES, "tapas": "answers questions about tables"}
LABELS = ("one", "three", "two")
BATCH = 4


def families() -> list[str]:
    """Model types of everything that fills masks, and of DECODERS."""
    return sorted({*MODEL_FOR_MASKED_LM_MAPPING_NAMES, *DECODERS})


def tiny_config(model_type: str) -> PretrainedConfig:
    """A configuration of some ten thousand weights."""
    stock = AutoConfig.for_model(model_type)
    fields = {*stock.to_dict(), *stock.attribute_map}
    sizes = {name: value for name, value in SIZES.items() if name in fields}
    config = AutoConfig.for_model(model_type, **(sizes | OWN_SIZES.get(model_type, {})))
    config.architectures = []  # AutoModel looks there for which of Funnel's two to make
    return config


def obstacle(model_type: str) -> str | None:
    """Why a family isn't tried at all."""
    if model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return "transformers has no classifier for it"
    if model_type in REASONS:
        return REASONS[model_type]
    stock = AutoConfig.for_model(model_type)
    return "an encoder with a decoder" if getattr(stock, "is_encoder_decoder", False) else None


def make_base(model_type: str, folder: Path) -> Backbone:
    """A random encoder of the family in `folder`, as a checkpoint without any head."""
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config(model_type)).save_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    return Backbone(str(folder), config, tokenizer=None)  # type: ignore[arg-type]


def inputs(seed: int) -> dict[str, torch.Tensor]:
    """Random token ids [BATCH, 16] without padding."""
    ids = torch.randint(5, 60, (BATCH, 16), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def logits(model: nn.Module) -> torch.Tensor:
    """[BATCH, classes] of fixed token ids; models that draw random numbers get equal ones."""
    torch.manual_seed(0)
    with torch.no_grad():
        return model.eval()(**inputs(seed=0)).logits


def train_one_step(model: nn.Module) -> None:
    """One step of Adam on a random batch."""
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model(**inputs(seed=1), labels=torch.arange(BATCH) % 3).loss.backward()
    optimizer.step()


def try_method(method: str, backbone: Backbone, folder: Path) -> None:
    """Train, store in `folder`, load, a mask also into a shared base; raises where the predictions
    aren't those of the trained model. Merging rounds, so they may differ by 1e-4.
    """
    torch.manual_seed(0)
    model, random = load_with_head(backbone, TASKS["trec"], LABELS, None)
    head = Head("walk", LABELS, random, seed=0)
    flags: dict[str, dict[str, Any]] = {
        "lora": {"r": 2, "alpha": 4, "dropout": 0.0},
        "shira": {"r": 2},
    }
    wrapped = METHODS[method].wrap(model, head, flags.get(method, {}))
    before = logits(wrapped)
    train_one_step(wrapped)
    learned = logits(wrapped)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"kind": "text", "labels": LABELS}))
    METHODS[method].save(wrapped, folder)
    if torch.equal(before, learned):
        raise AssertionError("one step changed no prediction")
    found = {"loaded": logits(load_model(folder, backbone.name))}
    if method == "mask":
        resident = Resident(backbone.name, [MaskFolder.open(folder)])
        torch.manual_seed(0)
        found["served"] = resident.logits(["walk"], inputs(seed=0))["walk"]
    for how, predictions in found.items():
        if not torch.allclose(predictions, learned, rtol=1e-4, atol=1e-4):
            raise AssertionError(f"{how} predictions differ from those of the trained model")


def matrices_of(backbone: Backbone) -> str:
    """The matrices that can be chosen by name, as the table shows them."""
    with torch.device("meta"):
        blocks = find_blocks(AutoModel.from_config(backbone.config))
    parts = {matrix for role in blocks.roles.values() for matrix in split_role(role)}
    named = " ".join(matrix for matrix in MATRICES if matrix in parts)
    return named + (", others" if "" in blocks.roles.values() else "")


def row(model_type: str) -> str:
    """The family's line of the table."""
    reason = obstacle(model_type)
    matrices = "–"
    marks = dict.fromkeys(METHODS, "–")
    notes = [reason] if reason else []
    reasons: dict[str, list[str]] = {}
    if reason is None:
        with tempfile.TemporaryDirectory() as temporary:
            try:
                backbone = make_base(model_type, Path(temporary) / "base")
            except Exception as error:
                return _line(model_type, matrices, marks, [f"not made: {_first(error)}"])
            with suppress(FinetuneError):
                matrices = matrices_of(backbone)
            for method in METHODS:
                try:
                    try_method(method, backbone, Path(temporary) / method)
                except Exception as error:  # whatever a family of models may raise
                    reasons.setdefault(_first(error, method), []).append(method)
                else:
                    marks[method] = "yes"
            notes += [f"{', '.join(which)}: {why}" for why, which in reasons.items()]
    return _line(model_type, matrices, marks, notes)


def _line(model_type: str, matrices: str, marks: dict[str, str], notes: list[str]) -> str:
    cells = [f"`{model_type}`", matrices, *marks.values(), "; ".join(notes)]
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _first(error: Exception, method: str = "") -> str:
    """A short reason; a FinetuneError up to its remedy, any other by its kind, too."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, FinetuneError):
        text = text.removeprefix(f"--method {method}: ").removeprefix("target_modules: ")
        return text.partition(";")[0]
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return f"{kind}{text[:100]}"


def table(names: Sequence[str]) -> Iterator[str]:
    """The lines of the Markdown table for these model types."""
    yield f"| `model_type` | matrices by name | {' | '.join(METHODS)} | |"
    yield f"| --- | --- | {' | '.join(['---'] * len(METHODS))} | --- |"
    for name in names:
        yield row(name)


def print_table(names: Sequence[str]) -> None:
    """The table for the model types `names`, or for all; FinetuneError for an unknown one."""
    unknown = sorted(set(names) - {*families()})
    if unknown:
        raise FinetuneError(
            f"{', '.join(unknown)}: no family that is tried, expected some of "
            f"{', '.join(families())}."
        )
    torch.set_num_threads(1)
    for line in table(names or families()):
        print(line, flush=True)
