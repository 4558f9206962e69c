"""Masks saved, loaded, merged and refused: what comes back is the same to the bit."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import RobertaForSequenceClassification

from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from tests.finetune.masks.small_encoder import layers, logits, roberta, train


def test_saved_reloaded_and_merged_are_the_same_to_the_bit(tmp_path: Path) -> None:
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


def test_file_size_is_the_formula(tmp_path: Path) -> None:
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


def test_other_base_weights_are_refused_with_both_hashes(tmp_path: Path) -> None:
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


def test_two_masks_on_one_base(tmp_path: Path) -> None:
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


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    digests = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        model = get_peft_model(roberta(head_seed=seed), MaskConfig(seed=seed))
        train(model, 5)
        model.save_pretrained(tmp_path / name)
        file = tmp_path / name / "adapter_model.safetensors"
        digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digests["a"] == digests["b"] != digests["c"]


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


def test_a_head_that_is_neither_masked_nor_trained_is_saved_as_it_is(tmp_path: Path) -> None:
    model = get_peft_model(roberta(head_seed=1), MaskConfig(mask_classifier=False))
    before = logits(model.eval())
    model.save_pretrained(tmp_path)
    other = PeftModel.from_pretrained(roberta(head_seed=2), str(tmp_path))
    assert logits(other.eval()).equal(before)


@pytest.mark.parametrize("granularity", ["weight", "head", "layer"])
def test_trained_gates_are_saved_as_bits(tmp_path: Path, granularity: str) -> None:
    model = get_peft_model(
        roberta(),
        MaskConfig(
            binarizer="hard_concrete",
            granularity=granularity,
            initial_sparsity=0.4,
            recompute_blocks=1,
        ),
    )
    before = logits(model.eval())
    model.train()
    train(model, steps=60)
    after = logits(model.eval())
    assert not after.equal(before)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(roberta(), str(tmp_path)).eval()
    assert logits(loaded).equal(after)


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
