"""PEFT's table of what an adapter promises, for every binarizer, granularity and family."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import (
    BertConfig,
    BertForMultipleChoice,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
)

from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from finetune.masks.layer import MaskedLinear

SIZE = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 20, "num_labels": 3,
}  # fmt: skip
DISTIL = DistilBertConfig(
    vocab_size=50, dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=20,
    num_labels=3,
)  # fmt: skip
MODERN = ModernBertConfig(**SIZE, global_attn_every_n_layers=1, pad_token_id=0)
FAMILIES = {
    "bert": (BertForSequenceClassification, BertConfig(**SIZE), 2 * 6 + 2),
    "bert tokens": (BertForTokenClassification, BertConfig(**SIZE), 2 * 6 + 1),
    "roberta": (RobertaForSequenceClassification, RobertaConfig(**SIZE), 2 * 6 + 2),
    "roberta tokens": (RobertaForTokenClassification, RobertaConfig(**SIZE), 2 * 6 + 1),
    "electra": (
        ElectraForSequenceClassification, ElectraConfig(**SIZE, embedding_size=16), 2 * 6 + 2
    ),
    "distilbert": (DistilBertForSequenceClassification, DISTIL, 2 * 6 + 2),
    "modernbert": (ModernBertForSequenceClassification, MODERN, 2 * 4 + 2),
}  # fmt: skip
METHODS = {
    "threshold": {},
    "hardtanh": {"binarizer": "hardtanh"},
    "bernoulli": {"binarizer": "bernoulli"},
    "topk": {"binarizer": "topk", "initial_sparsity": 0.2},
    "heads": {"granularity": "head", "initial_sparsity": 0.5},
    "layers": {"granularity": "layer", "initial_sparsity": 0.5},
    "trained head": {"train_classifier": True},
    "magnitude": {"init": "magnitude", "initial_sparsity": 0.3},
    "bits": {"encoding": "bits"},
    "target": {"target_sparsity": 0.3},
    "recomputed": {"recompute_blocks": 1},
}
CASES = [("roberta", method) for method in METHODS] + [
    (family, "threshold") for family in FAMILIES if family != "roberta"
]
IDS = torch.randint(5, 50, (4, 9), generator=torch.Generator().manual_seed(0))


def make(family: str, seed: int = 0, head_seed: int = 0) -> PreTrainedModel:
    model_class, config, _ = FAMILIES[family]
    torch.manual_seed(seed)
    model = model_class(copy.deepcopy(config))
    torch.manual_seed(100 + head_seed)
    for name, module in model.named_children():
        for parameter in module.parameters() if name != model.base_model_prefix else ():
            if parameter.dim() > 1:
                nn.init.normal_(parameter)
    return model.eval()


def train(model: nn.Module, steps: int = 4) -> None:
    model.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=0.05)
    tokens = "Token" in type(model.get_base_model()).__name__
    labels = torch.tensor([0, 1, 2, 0])
    for _ in range(steps):
        model(
            input_ids=IDS, labels=labels[:, None].repeat(1, 9) if tokens else labels
        ).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize(("family", "method"), CASES)
def test_the_table(family: str, method: str, tmp_path: Path) -> None:
    base = make(family)
    plain = logits(base)
    model = get_peft_model(base, MaskConfig(**METHODS[method]))
    masked = [m for m in model.modules() if isinstance(m, MaskedLinear)]
    if method == "threshold":
        assert len(masked) == FAMILIES[family][2]
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    trained = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    train(model)

    # Gradients only where meant: the frozen are the same to the bit, all that train have moved.
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name
        elif method not in ("heads", "layers"):  # one score may well have no gradient
            assert not torch.equal(parameter, trained[name]), name
    kinds = (".mask_scores.", ".mask_weight.", ".mask_bias.") if method == "trained head" else (
        ".mask_scores.",)  # fmt: skip
    assert all(any(kind in name for kind in kinds) for name in trained)

    expected = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), plain)
        assert not any(p.requires_grad for p in model.parameters())
    assert torch.equal(logits(model), expected)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(trained)

    # Merge equals unmerged; twice is once; unmerging gives the base back.
    model.merge_adapter()
    assert torch.equal(logits(model), expected)
    model.merge_adapter()
    assert torch.equal(logits(model), expected)
    model.unmerge_adapter()
    assert torch.equal(logits(model), expected)

    model.save_pretrained(tmp_path)
    fresh = PeftModel.from_pretrained(make(family, head_seed=7), str(tmp_path))
    assert torch.equal(logits(fresh), expected)
    assert not any(p.requires_grad for p in fresh.parameters())
    unloaded = fresh.merge_and_unload()
    assert torch.equal(logits(unloaded), expected)
    assert not any(isinstance(m, MaskedLinear) for m in unloaded.modules())
    assert torch.equal(logits(model.unload()), plain)


def test_several_masks_are_added_chosen_and_deleted() -> None:
    model = get_peft_model(make("roberta"), MaskConfig(seed=1))
    first = logits(model)
    model.add_adapter("other", MaskConfig(seed=2, initial_sparsity=0.3))
    assert torch.equal(logits(model), first)
    model.set_adapter("other")
    second = logits(model)
    assert not torch.equal(first, second)
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trainable and all(n.endswith(".other") for n in trainable)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.delete_adapter("other")
    assert torch.equal(logits(model), first)
    assert not any(".other" in name for name, _ in model.named_parameters())
    with pytest.raises(ValueError, match=r"not found|other"):
        model.set_adapter("other")


def test_trainable_parameters_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    model = get_peft_model(make("bert"), MaskConfig(matrices=["Q", "I"], blocks="top:1"))
    model.print_trainable_parameters()
    count = 16 * 16 + 16 * 32 + 16 * 16 + 3 * 16  # Q, I, pooler, classifier
    assert f"trainable params: {count:,} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"blocks": "bottom:1"}, {0}), ({"blocks": "top:1"}, {1}), ({"blocks": [1, 0]}, {0, 1}),
    ],
)  # fmt: skip
def test_blocks(settings: dict, layers: set[int]) -> None:
    model = get_peft_model(make("bert"), MaskConfig(**settings))
    names = [n for n, m in model.named_modules() if isinstance(m, MaskedLinear)]
    assert {int(n.split(".layer.")[1][0]) for n in names if ".layer." in n} == layers


def test_a_whole_head_is_removed() -> None:
    """A dropped head of V adds its bias only, whatever the head attends to."""
    model = get_peft_model(
        make("bert"), MaskConfig(granularity="head", matrices=["V"], init="ones", blocks=[0])
    )
    value = next(m for n, m in model.named_modules() if n.endswith("layer.0.attention.self.value"))
    value.mask_scores["default"].data[1] = 0.0
    weight, _ = value.effective("default")
    assert value.mask_scores["default"].shape == (2, 1)
    assert torch.equal(weight[8:], torch.zeros(8, 16))
    assert torch.equal(weight[:8], value.base_layer.weight[:8])


def test_no_backward_below_the_lowest_masked_block() -> None:
    model = get_peft_model(make("bert"), MaskConfig(blocks=[1]))
    inputs = []
    for layer in model.get_base_model().bert.encoder.layer:
        layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0].requires_grad))
        layer.register_forward_hook(lambda module, args, out: inputs.append(
            (out[0] if isinstance(out, tuple) else out).requires_grad))  # fmt: skip
    model.train()
    model(input_ids=IDS, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert inputs == [False, False, False, True]


@pytest.mark.parametrize("checkpointing", ["config", "transformers"])
def test_checkpointed_gradients_are_the_same(checkpointing: str) -> None:
    gradients = []
    for on in (False, True):
        blocks = 1 if on and checkpointing == "config" else 0
        model = get_peft_model(make("bert"), MaskConfig(recompute_blocks=blocks)).train()
        model = copy.deepcopy(model)
        if on and checkpointing == "transformers":
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(5)  # the same dropout
        model(input_ids=IDS, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(gradients[0], gradients[1])


def test_compiled() -> None:
    model = get_peft_model(make("bert"), MaskConfig())
    gradients = []
    for run in (model, torch.compile(model, backend="aot_eager")):
        run(input_ids=IDS, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    assert gradients[0]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_any_module_with_linear_layers() -> None:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    x = torch.randn(3, 5)
    model = get_peft_model(base, MaskConfig(target_modules=["0"], initial_sparsity=0.4))
    layer = model.base_model.model[0]
    weight = layer.base_layer.weight * (layer.mask_scores["default"] > 0.01)
    hidden = torch.tanh(x @ weight.T + layer.base_layer.bias)
    torch.testing.assert_close(model(x), base[2](hidden))


def test_frozen_weights_in_bf16(tmp_path: Path) -> None:
    model = get_peft_model(make("roberta"), MaskConfig(frozen_dtype="bfloat16"))
    dtypes = {p.dtype for n, p in model.named_parameters() if ".mask_" not in n}
    assert dtypes == {torch.bfloat16}
    scores = {p.dtype for n, p in model.named_parameters() if ".mask_scores" in n}
    assert scores == {torch.float32}
    train(model)
    model.save_pretrained(tmp_path)
    # The mask knows its precision: the base is given as it is stored.
    fresh = PeftModel.from_pretrained(make("roberta", head_seed=3), str(tmp_path))
    fresh.load_adapter(str(tmp_path), "second")
    for name in ("second", "default"):
        fresh.set_adapter(name)
        assert torch.equal(logits(fresh), logits(model))
    with pytest.raises(FinetuneError, match="frozen_dtype: found None, but the base holds"):
        fresh.add_adapter("third", MaskConfig())
    assert torch.equal(logits(fresh.merge_and_unload()), logits(model))


def test_scores_are_saved_where_training_goes_on(tmp_path: Path) -> None:
    model = get_peft_model(make("roberta"), MaskConfig(stores_scores=True))
    train(model)
    model.save_pretrained(tmp_path)
    fresh = PeftModel.from_pretrained(make("roberta"), str(tmp_path), is_trainable=True)
    state = {n: p for n, p in model.named_parameters() if ".mask_" in n}
    for name, parameter in fresh.named_parameters():
        if ".mask_" in name:
            assert torch.equal(parameter, state[name]), name


def test_a_new_process_gives_identical_logits(tmp_path: Path) -> None:
    base = make("roberta")
    base.save_pretrained(tmp_path / "base")
    base = RobertaForSequenceClassification.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, MaskConfig(labels=["a", "b", "c"]))
    train(model)
    model.save_pretrained(tmp_path / "mask")
    torch.save((IDS, logits(model)), tmp_path / "expected.pt")
    program = """
import sys, torch
from pathlib import Path
from finetune.masks.apply import load_masked
from finetune.masks.folder import MaskFolder
torch.set_num_threads(1)
folder = Path(sys.argv[1])
ids, expected = torch.load(folder / "expected.pt")
mask = MaskFolder.open(folder / "mask")
for merge in (False, True):
    with torch.no_grad():
        assert torch.equal(load_masked(mask, str(folder / "base"), merge)(ids).logits, expected)
print("same")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout == "same\n", done.stderr


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("modernbert", {"matrices": ["Q", "AO"]}, r"keeps Q, K, V in one, attn\.Wqkv"),
        ("bert", {"blocks": "top:9"}, r"found \[top:9\]; .* bottom:N .N from 0 to 2"),
        ("bert", {"granularity": "head", "matrices": ["Q", "O"]}, r"some of Q, K, V"),
        ("bert", {"binarizer": "topk", "target_sparsity": 0.2}, r"target_sparsity: found 0\.2"),
        ("bert", {"binarizer": "treshold"}, r"found 'treshold', expected one of threshold, hard"),
        ("bert", {"format_version": 1}, r"found 1, expected 2"),
    ],
)
def test_settings_that_cannot_be(family: str, settings: dict, message: str) -> None:
    with pytest.raises(FinetuneError, match=message):
        get_peft_model(make(family), MaskConfig(**settings))


def test_multiple_choice(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = BertForMultipleChoice(BertConfig(**SIZE))
    model = get_peft_model(base, MaskConfig())
    loss = model(input_ids=IDS[:, None].repeat(1, 3, 1), labels=torch.tensor([0, 1, 2, 0])).loss
    loss.backward()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["model_class"] == "MultipleChoice"
