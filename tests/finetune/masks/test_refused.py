"""What a mask refuses where PEFT or transformers would go on with something else."""

from pathlib import Path

import pytest
from peft import PeftModel, get_peft_model
from transformers import RobertaConfig, RobertaForSequenceClassification

from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from tests.finetune.masks.small_encoder import IDS, SIZE, logits, roberta


def test_transformers_own_loading_is_refused(tmp_path: Path) -> None:
    """It copies tensors by name: every mask would be left empty, and the logits zero."""
    base, mask = str(tmp_path / "base"), str(tmp_path / "mask")
    RobertaForSequenceClassification(RobertaConfig(**SIZE)).save_pretrained(base)
    load = RobertaForSequenceClassification.from_pretrained
    model = get_peft_model(load(base), MaskConfig())
    expected = logits(model.eval())
    model.save_pretrained(mask)
    with pytest.raises(FinetuneError, match=r"PeftModel\.from_pretrained"):
        load(base).load_adapter(mask)
    with pytest.raises(FinetuneError, match=r"PeftModel\.from_pretrained"):
        load(mask)
    assert logits(PeftModel.from_pretrained(load(base), mask).eval()).equal(expected)


def test_adapter_names_are_refused_and_not_ignored() -> None:
    model = get_peft_model(roberta(), MaskConfig(), adapter_name="one").eval()
    model.add_adapter("two", MaskConfig(seed=5))
    with pytest.raises(ValueError, match=r"adapter_names: .*set_adapter"):
        model(input_ids=IDS, adapter_names=["one", "two", "one", "two"])
    assert model(input_ids=IDS, adapter_names=None).logits.shape == (4, 3)


@pytest.mark.parametrize("labels", [["a"], list("abcd"), []])
def test_as_many_labels_as_outputs(labels: list[str]) -> None:
    with pytest.raises(FinetuneError, match=rf"labels: found {len(labels)}, .* has 3 outputs"):
        get_peft_model(roberta(), MaskConfig(labels=labels))


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"]])
def test_a_base_with_another_number_of_outputs(labels: list[str] | None, tmp_path: Path) -> None:
    get_peft_model(roberta(), MaskConfig(labels=labels)).save_pretrained(tmp_path)
    other = RobertaForSequenceClassification(RobertaConfig(**SIZE | {"num_labels": 2}))
    other.roberta.load_state_dict(roberta().roberta.state_dict())
    with pytest.raises(FinetuneError, match=r"load it with num_labels=3"):
        PeftModel.from_pretrained(other, str(tmp_path))


@pytest.mark.parametrize(
    "field", ["initial_sparsity", "target_sparsity", "threshold", "init_scale", "seed"]
)
@pytest.mark.parametrize("value", ["0.1", True, [1]])
def test_numbers_are_numbers(field: str, value: object) -> None:
    with pytest.raises(FinetuneError, match=rf"{field}: found .*, expected a (whole )?number"):
        MaskConfig(**{field: value})
    with pytest.raises(FinetuneError, match=r"seed: found 0\.5, expected a whole number"):
        MaskConfig(seed=0.5)  # type: ignore[arg-type]
