"""The mask method against its formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForSequenceClassification,
)

from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from finetune.masks.architectures import default_blocks
from finetune.masks.binarizers import Rule
from finetune.masks.layer import MaskedLinearFunction
from tests.finetune.masks.small_encoder import IDS, SIZE, layers, logits, roberta, train


@pytest.mark.parametrize("sparsity", [0.05, 0.3, 0.9])
def test_initial_zero_share(sparsity: float) -> None:
    model = get_peft_model(roberta(), MaskConfig(initial_sparsity=sparsity))
    for layer in layers(model).values():
        scores = layer.mask_scores["default"]
        zeros = (scores <= 0.01).float().mean().item()
        assert abs(zeros - sparsity) <= 3.5 * (sparsity * (1 - sparsity) / scores.numel()) ** 0.5
        assert scores.min() >= -0.02 and scores.max() <= 0.03 / sparsity - 0.02


def test_a_score_at_the_threshold_masks() -> None:
    weight, x = torch.ones(1, 3), torch.eye(3)
    scores = torch.tensor([[0.01, 0.0100001, -5.0]])
    out = MaskedLinearFunction.apply(x, scores, weight, None, Rule(), True)
    assert out.flatten().tolist() == [0.0, 1.0, 0.0]


def test_straight_through_gradients() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 4, dtype=torch.double, requires_grad=True)
    weight, bias = torch.randn(3, 4, dtype=torch.double), torch.randn(3, dtype=torch.double)
    scores = torch.randn(3, 4, dtype=torch.double, requires_grad=True)
    upstream = torch.randn(2, 5, 3, dtype=torch.double)
    (MaskedLinearFunction.apply(x, scores, weight, bias, Rule(), True) * upstream).sum().backward()

    effective = (weight * (scores > 0.01)).detach()
    numeric = torch.empty_like(weight)
    for index in np.ndindex(*weight.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = effective.clone()
            moved[index] += step
            ends.append((torch.nn.functional.linear(x, moved, bias) * upstream).sum())
        numeric[index] = (ends[0] - ends[1]).detach() / 2e-6
    torch.testing.assert_close(scores.grad, numeric * weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad, upstream @ effective)


def test_no_second_copy_of_the_weight_is_kept() -> None:
    weight, scores = torch.randn(64, 64), torch.randn(64, 64, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        MaskedLinearFunction.apply(torch.randn(2, 64), scores, weight, None, Rule(), True)
    large = {tensor.data_ptr() for tensor in kept if tensor.numel() == weight.numel()}
    assert large == {weight.data_ptr(), scores.data_ptr()}


def test_only_scores_change() -> None:
    model = get_peft_model(roberta(), MaskConfig())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if ".mask_scores." in name}


def test_all_ones_is_the_base_and_all_zeros_only_biases() -> None:
    base = roberta()
    expected = logits(base)
    model = get_peft_model(base, MaskConfig())
    for layer in layers(model).values():
        layer.mask_scores["default"].data.fill_(1)
    assert torch.equal(logits(model), expected)
    for layer in layers(model).values():
        layer.mask_scores["default"].data.zero_()
    bias = base.classifier.out_proj.mask_bias["default"]
    assert torch.equal(logits(model), bias.detach().expand(4, 3))
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)


def test_trainable_tensors_and_elements() -> None:
    model = get_peft_model(roberta(), MaskConfig(blocks=[1, 2]))
    trainable, _ = model.get_nb_trainable_parameters()
    # 12 h² a block (with f = 2h here: 8 h²) and the two matrices of the head.
    assert trainable == 2 * 8 * 16**2 + 16**2 + 3 * 16
    assert len([p for p in model.parameters() if p.requires_grad]) == 2 * 6 + 2


def test_bert_base_has_the_papers_number_of_bits() -> None:
    with torch.device("meta"):
        base = BertForSequenceClassification(BertConfig())
    names = dict(base.named_modules())
    blocks = [f"bert.encoder.layer.{block}." for block in default_blocks(12)]
    bits = sum(
        module.weight.numel()
        for name, module in names.items()
        if isinstance(module, torch.nn.Linear)
        and (name.startswith(tuple(blocks)) or name == "bert.pooler.dense")
    )
    assert bits / 8 == 8_921_088


def test_bf16_sees_the_same_mask() -> None:
    model = get_peft_model(roberta().to(torch.bfloat16), MaskConfig())
    scores = [layer.mask_scores["default"] for layer in layers(model).values()]
    assert {s.dtype for s in scores} == {torch.float32}
    # Scores so near to the threshold that bf16 can't tell them from it.
    near = torch.tensor([[0.01, 0.01 + 1e-6, 0.01 - 1e-6]])
    x = torch.eye(3, dtype=torch.bfloat16)
    out = MaskedLinearFunction.apply(x, near, torch.ones(1, 3), None, Rule(), True)
    assert out.flatten().tolist() == [0.0, 1.0, 0.0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(input_ids=IDS).logits.isfinite().all()


def test_initial_mask_depends_on_the_seed_and_not_on_the_head() -> None:
    def query(seed: int, head_seed: int) -> torch.Tensor:
        model = get_peft_model(roberta(head_seed=head_seed), MaskConfig(seed=seed))
        return (
            model.get_base_model()
            .roberta.encoder.layer[0]
            .attention.self.query.mask_scores["default"]
        )

    assert torch.equal(query(1, 1), query(1, 2))
    assert not torch.equal(query(1, 1), query(2, 1))


BERT = BertConfig(**SIZE)
PRENORM = RobertaPreLayerNormConfig(**SIZE)
DISTIL = DistilBertConfig(
    vocab_size=50, dim=16, hidden_dim=32, n_layers=6, n_heads=2, max_position_embeddings=20,
    num_labels=3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("model_class", "config", "count"),
    [
        (BertForSequenceClassification, BERT, 3 * 6 + 2),
        (RobertaPreLayerNormForSequenceClassification, PRENORM, 3 * 6 + 2),
        (DistilBertForSequenceClassification, DISTIL, 4 * 6 + 2),
    ],
)
def test_families(
    model_class: type[PreTrainedModel], config: object, count: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    base = model_class(config)
    state = {name: value.clone() for name, value in base.state_dict().items()}
    model = get_peft_model(base, MaskConfig())
    assert len(layers(model)) == count
    train(model, 2)
    model.save_pretrained(tmp_path)
    torch.manual_seed(9)
    fresh = model_class(config)
    inner = {k: v for k, v in state.items() if k.startswith(fresh.base_model_prefix)}
    fresh.load_state_dict(inner, strict=False)
    reloaded = PeftModel.from_pretrained(fresh, str(tmp_path))
    assert torch.equal(logits(reloaded), logits(model.eval()))


@pytest.mark.parametrize(("depth", "first"), [(12, 2), (6, 2), (24, 2), (4, 0)])
def test_default_blocks(depth: int, first: int) -> None:
    assert default_blocks(depth) == list(range(first, depth))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ["encoder.layer.0.attn"]}, r"matches nothing.*attention\.self\.query"),
        ({"target_modules": ["embeddings.LayerNorm"]}, r"is a LayerNorm, expected a Linear"),
        ({"blocks": [1, 7]}, r"found \[1, 7\]; this encoder has 0 to 2"),
        ({"matrices": ["Q", "X"]}, r"found \['X'\]"),
        ({"initial_sparsity": 1.5}, r"found 1\.5"),
    ],
)
def test_errors_say_what_exists(settings: dict, message: str) -> None:
    with pytest.raises(FinetuneError, match=message):
        get_peft_model(roberta(), MaskConfig(**settings))
