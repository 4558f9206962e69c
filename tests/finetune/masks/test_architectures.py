"""The layers that are found in a model, against the names its authors gave them."""

import re
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from finetune.choices import MATRICES
from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from finetune.masks.architectures import find_blocks
from finetune.masks.layer import MaskedLinear
from finetune.masks.targets import adapter_targets, encoder_targets

BERT = (
    "attention.self.query attention.self.key attention.self.value attention.output.dense "
    "intermediate.dense output.dense"
)
LLAMA = (
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj "
    "mlp.up_proj mlp.down_proj"
)
# Per family its list of blocks and the names of Q, K, V, AO, I, O in a block, from its source.
NAMES = {
    "bert": ("bert.encoder.layer", BERT),
    "roberta": ("roberta.encoder.layer", BERT),
    "xlm-roberta": ("roberta.encoder.layer", BERT),
    "electra": ("electra.encoder.layer", BERT),
    "roformer": ("roformer.encoder.layer", BERT),
    "esm": ("esm.encoder.layer", BERT),
    "distilbert": (
        "distilbert.transformer.layer",
        "attention.q_lin attention.k_lin attention.v_lin attention.out_lin ffn.lin1 ffn.lin2",
    ),
    "modernbert": ("model.layers", "attn.Wqkv attn.Wqkv attn.Wqkv attn.Wo mlp.Wi mlp.Wo"),
    "deberta": (
        "deberta.encoder.layer",
        "attention.self.in_proj attention.self.in_proj attention.self.in_proj "
        "attention.output.dense intermediate.dense output.dense",
    ),
    "deberta-v2": (
        "deberta.encoder.layer",
        "attention.self.query_proj attention.self.key_proj attention.self.value_proj "
        "attention.output.dense intermediate.dense output.dense",
    ),
    "mpnet": (
        "mpnet.encoder.layer",
        "attention.attn.q attention.attn.k attention.attn.v attention.attn.o intermediate.dense "
        "output.dense",
    ),
    "albert": (
        "albert.encoder.albert_layer_groups",
        "albert_layers.0.attention.query albert_layers.0.attention.key "
        "albert_layers.0.attention.value albert_layers.0.attention.dense albert_layers.0.ffn "
        "albert_layers.0.ffn_output",
    ),
    "nomic_bert": ("nomic_bert.layers", LLAMA),
    "gte": ("gte.layers", LLAMA),
    "eurobert": ("model.layers", LLAMA),
    "qwen2": ("model.layers", LLAMA),
}


def make(model_type: str, depth: int = 3) -> PreTrainedModel:
    """On the meta device: names and shapes alone."""
    stock = AutoConfig.for_model(model_type)
    names = {*stock.to_dict(), *stock.attribute_map}
    fields = {
        **dict.fromkeys(("num_hidden_layers", "n_layers"), depth),
        **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_heads"), 2),
        **dict.fromkeys(("hidden_size", "dim", "embedding_size"), 32),
        **dict.fromkeys(("vocab_size", "intermediate_size", "hidden_dim"), 64),
        "pad_token_id": 0,
    }
    config = AutoConfig.for_model(model_type, **{k: v for k, v in fields.items() if k in names})
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


@pytest.mark.parametrize("family", NAMES)
def test_the_six_matrices_have_the_names_of_their_source(family: str) -> None:
    stem, joined = NAMES[family]
    names = joined.split()
    model = make(family)
    blocks = find_blocks(model)
    assert blocks.stems == (stem,)
    assert blocks.depth == (1 if family == "albert" else 3)  # ALBERT shares one block
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if len(set(names)) == 6:
        for matrix, name in zip(MATRICES, names, strict=True):
            found = blocks.chosen([matrix])
            assert found == [f"{stem}.{{}}.{name}"]
    pattern = blocks.pattern([0], blocks.chosen(MATRICES))
    assert {n for n in linear if re.fullmatch(pattern, n)} == {f"{stem}.0.{n}" for n in names}


def test_deberta_and_modernbert_have_queries_keys_and_values_in_one() -> None:
    for family, name in (("deberta", "attention.self.in_proj"), ("modernbert", "attn.Wqkv")):
        blocks = find_blocks(make(family))
        assert [t.partition("{}.")[2] for t in blocks.chosen(["Q", "K", "V"])] == [name]
        with pytest.raises(FinetuneError, match=rf"keeps Q, K, V in one, {re.escape(name)}"):
            blocks.chosen(["Q", "AO"])


def test_attention_and_mlp_in_two_lists() -> None:
    blocks = find_blocks(make("xlm"))
    assert blocks.stems == ("transformer.attentions", "transformer.ffns")
    chosen = re.compile(blocks.pattern([1], blocks.chosen(["Q", "O"])))
    assert chosen.fullmatch("transformer.attentions.1.q_lin")
    assert chosen.fullmatch("transformer.ffns.1.lin2")
    assert not chosen.fullmatch("transformer.ffns.0.lin2")


def test_layers_of_unknown_names_are_masked_unless_matrices_are_chosen() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixer, self.fc1 = nn.Linear(4, 4), nn.Linear(4, 8)

    model = nn.Module()
    model.blocks = nn.ModuleList(Block() for _ in range(2))
    model.embed = nn.Linear(3, 4)
    masked = get_peft_model(model, MaskConfig())
    names = {n for n, m in masked.named_modules() if isinstance(m, MaskedLinear)}
    assert names == {f"base_model.model.blocks.{i}.{n}" for i in (0, 1) for n in ("mixer", "fc1")}
    with pytest.raises(FinetuneError, match=r"found Q, but of this model only I can be told"):
        find_blocks(model).chosen(["Q"])


def test_no_blocks_names_the_layers_to_choose_from() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    with pytest.raises(FinetuneError, match=r"target_modules: found no list of .*some of 0, 1"):
        get_peft_model(model, MaskConfig())


TARGETS: list[tuple[Any, int]] = [
    ("all-linear", 3 * 6 + 1),  # the pooler is in BERT's base
    (["query", "value"], 3 * 2),
    (r".*layer\.[01]\.attention\.self\.(query|key)", 2 * 2),
]


@pytest.mark.parametrize(("targets", "count"), TARGETS)
def test_target_modules_are_pefts_and_the_head_is_masked_too(targets: Any, count: int) -> None:
    model = make("bert").to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    lora = get_peft_model(model, LoraConfig(target_modules=targets, exclude_modules=["classifier"]))
    theirs = {n for n, m in lora.named_modules() if isinstance(m, LoraLayer)}
    assert len(theirs) == count
    masked = get_peft_model(lora.unload(), MaskConfig(target_modules=targets))
    ours = {n for n, m in masked.named_modules() if isinstance(m, MaskedLinear)}
    assert ours == {*theirs, "base_model.model.classifier"}


def test_lora_takes_queries_and_values() -> None:
    model = make("deberta-v2")
    chosen = re.compile(adapter_targets(None, model, "QV"))
    names = {name.rpartition(".")[2] for name, _ in model.named_modules() if chosen.fullmatch(name)}
    assert names == {"query_proj", "value_proj"}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["queries"], "queries matches nothing; there are: .*query"),
        ("[", "is no regular expression"),
        (["LayerNorm"], "is a LayerNorm, expected a Linear"),
    ],
)
def test_wrong_targets_say_what_there_is(targets: Any, message: str) -> None:
    with pytest.raises(FinetuneError, match=message):
        encoder_targets(targets, make("bert"))
