"""The mask method against its formulas (methods §2.11: M1-M8, M9, M11, M15, M17, M18)."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForSequenceClassification,
)

from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from finetune.masks.architectures import default_blocks
from finetune.masks.binarizers import Rule
from finetune.masks.layer import MaskedLinear, MaskedLinearFunction

SIZE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
    "num_labels": 3,
}
IDS = torch.randint(5, 50, (4, 9), generator=torch.Generator().manual_seed(0))


def roberta(seed: int = 0, head_seed: int = 0) -> PreTrainedModel:
    """Base weights from `seed`; the head, which no checkpoint has, from `head_seed`."""
    torch.manual_seed(seed)
    model = RobertaForSequenceClassification(RobertaConfig(**SIZE, initializer_range=0.2))
    torch.manual_seed(head_seed)
    for parameter in model.classifier.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def train(model: torch.nn.Module, steps: int = 10) -> None:
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=0.05)
    for _ in range(steps):
        model(input_ids=IDS, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def layers(model: torch.nn.Module) -> dict[str, MaskedLinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, MaskedLinear)}


@pytest.mark.parametrize("sparsity", [0.05, 0.3, 0.9])
def test_m1_initial_zero_share(sparsity: float) -> None:
    model = get_peft_model(roberta(), MaskConfig(initial_sparsity=sparsity))
    for layer in layers(model).values():
        scores = layer.mask_scores["default"]
        zeros = (scores <= 0.01).float().mean().item()
        assert abs(zeros - sparsity) <= 3.5 * (sparsity * (1 - sparsity) / scores.numel()) ** 0.5
        assert scores.min() >= -0.02 and scores.max() <= 0.03 / sparsity - 0.02


def test_m2_a_score_at_the_threshold_masks() -> None:
    weight, x = torch.ones(1, 3), torch.eye(3)
    scores = torch.tensor([[0.01, 0.0100001, -5.0]])
    out = MaskedLinearFunction.apply(x, scores, weight, None, Rule(), True)
    assert out.flatten().tolist() == [0.0, 1.0, 0.0]


def test_m3_straight_through_gradients() -> None:
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


def test_m3_no_second_copy_of_the_weight_is_kept() -> None:
    weight, scores = torch.randn(64, 64), torch.randn(64, 64, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        MaskedLinearFunction.apply(torch.randn(2, 64), scores, weight, None, Rule(), True)
    large = {tensor.data_ptr() for tensor in kept if tensor.numel() == weight.numel()}
    assert large == {weight.data_ptr(), scores.data_ptr()}


def test_m4_only_scores_change() -> None:
    model = get_peft_model(roberta(), MaskConfig())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if ".mask_scores." in name}


def test_m5_all_ones_is_the_base_and_all_zeros_only_biases() -> None:
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


def test_m6_trainable_tensors_and_elements() -> None:
    model = get_peft_model(roberta(), MaskConfig(blocks=[1, 2]))
    trainable, _ = model.get_nb_trainable_parameters()
    # 12 h² a block (methods §2.5, with f = 2h here: 8 h²) and the two matrices of the head.
    assert trainable == 2 * 8 * 16**2 + 16**2 + 3 * 16
    assert len([p for p in model.parameters() if p.requires_grad]) == 2 * 6 + 2


def test_m6_bert_base_has_the_papers_number_of_bits() -> None:
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


def test_m7_m8_saved_reloaded_and_merged_are_the_same_to_the_bit(tmp_path: Path) -> None:
    model = get_peft_model(roberta(), MaskConfig(task="rte", labels=["a", "b", "c"]))
    train(model)
    expected = logits(model.eval())
    model.save_pretrained(tmp_path)

    reloaded = PeftModel.from_pretrained(roberta(head_seed=7), str(tmp_path))
    assert torch.equal(logits(reloaded), expected)
    reloaded.merge_adapter()
    assert torch.equal(logits(reloaded), expected)
    reloaded.unmerge_adapter()
    assert torch.equal(logits(reloaded), expected)
    assert torch.equal(
        reloaded.get_base_model().roberta.encoder.layer[0].output.dense.weight,
        roberta().roberta.encoder.layer[0].output.dense.weight,
    )
    merged = reloaded.merge_and_unload()
    assert torch.equal(logits(merged), expected)
    merged.save_pretrained(tmp_path / "plain")
    plain = RobertaForSequenceClassification.from_pretrained(tmp_path / "plain")
    assert torch.equal(logits(plain), expected)

    config = json.loads((tmp_path / "adapter_config.json").read_text())
    query = plain.roberta.encoder.layer[1].attention.self.query.weight
    zeros = (query == 0).float().mean().item()
    assert config["sparsity"]["roberta.encoder.layer.1.attention.self.query"] == pytest.approx(
        zeros, abs=1e-6
    )
    assert (config["task"], config["labels"], config["threshold"]) == ("rte", ["a", "b", "c"], 0.01)


def test_m7_file_size_is_the_formula(tmp_path: Path) -> None:
    model = get_peft_model(roberta(), MaskConfig(encoding="bits"))
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    bits = {name: t for name, t in tensors.items() if name.endswith(".mask_bits")}
    assert sum(t.numel() for t in bits.values()) == (3 * 8 * 16**2 + 16**2 + 3 * 16) / 8
    # The head of RoBERTa, random and frozen, travels as floats.
    head = sum(t.numel() * 4 for name, t in tensors.items() if name not in bits)
    assert head == 4 * (16 * 16 + 16 + 3 * 16 + 3)
    # A reader needs numpy alone: row-major, lowest bit first.
    name = "roberta.encoder.layer.2.output.dense"
    packed = bits[f"base_model.model.{name}.mask_bits"].numpy()
    scores = layers(model)[f"base_model.model.{name}"].mask_scores["default"]
    kept = np.unpackbits(packed, bitorder="little").reshape(16, 32)
    assert np.array_equal(kept, (scores > 0.01).numpy())


def test_m9_other_base_weights_are_refused_with_both_hashes(tmp_path: Path) -> None:
    model = get_peft_model(roberta(), MaskConfig())
    model.save_pretrained(tmp_path)
    other = roberta()
    other.roberta.embeddings.word_embeddings.weight.data[3, 3] += 1e-6
    with pytest.raises(FinetuneError) as error:
        PeftModel.from_pretrained(other, str(tmp_path))
    own = json.loads((tmp_path / "adapter_config.json").read_text())["base_sha256"]
    found = get_peft_model(roberta(), MaskConfig()).peft_config["default"].base_sha256
    theirs = MaskConfig()
    get_peft_model(other, theirs)
    assert own == found != theirs.base_sha256
    assert own in str(error.value) and str(theirs.base_sha256) in str(error.value)


def test_m10_two_masks_on_one_base(tmp_path: Path) -> None:
    expected = {}
    for name, steps in (("one", 3), ("two", 8)):
        model = get_peft_model(roberta(head_seed=steps), MaskConfig())
        train(model, steps)
        expected[name] = logits(model.eval())
        model.save_pretrained(tmp_path / name)
    base = roberta()
    unmasked = logits(base)
    served = PeftModel.from_pretrained(base, str(tmp_path / "one"), adapter_name="one")
    served.load_adapter(str(tmp_path / "two"), adapter_name="two")
    for name in ("two", "one", "two"):
        served.set_adapter(name)
        assert torch.equal(logits(served), expected[name])
    assert torch.equal(logits(served.unload()), unmasked)


def test_m11_bf16_sees_the_same_mask() -> None:
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


def test_m15_same_seed_same_bytes(tmp_path: Path) -> None:
    digests = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        model = get_peft_model(roberta(head_seed=seed), MaskConfig(seed=seed))
        train(model, 5)
        model.save_pretrained(tmp_path / name)
        file = tmp_path / name / "adapter_model.safetensors"
        digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digests["a"] == digests["b"] != digests["c"]


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
def test_m18_families(
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


def test_trained_head_is_saved_per_mask(tmp_path: Path) -> None:
    model = get_peft_model(roberta(), MaskConfig(train_classifier=True))
    head = model.get_base_model().classifier.out_proj
    before = head.mask_weight["default"].detach().clone()
    assert "default" not in head.mask_scores
    train(model)
    assert not torch.equal(head.mask_weight["default"], before)
    model.save_pretrained(tmp_path)
    reloaded = PeftModel.from_pretrained(roberta(head_seed=3), str(tmp_path))
    assert torch.equal(logits(reloaded), logits(model.eval()))


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


def test_mask_file_of_other_shapes_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    get_peft_model(roberta(), MaskConfig(encoding="bits")).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.roberta.encoder.layer.0.output.dense.mask_bits"
    save_file({**tensors, name: tensors[name][:-1]}, file)
    with pytest.raises(FinetuneError, match=r"found 63 elements.*expected 64 bytes"):
        PeftModel.from_pretrained(roberta(), str(tmp_path))
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(FinetuneError, match=r"lacks 1 of 20 masks"):
        PeftModel.from_pretrained(roberta(), str(tmp_path))
