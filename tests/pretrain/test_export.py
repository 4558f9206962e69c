"""Export to and import from stock transformers, and filling masks from what was exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    RobertaConfig,
    RobertaForMaskedLM,
    pipeline,
)

from pretrain import fill_mask as fill_mask_module
from pretrain.auto import LateMaskForMaskedLM
from pretrain.errors import PretrainError
from pretrain.export import export, load
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.fill_mask import fill_mask
from pretrain.model import LateMaskModel
from tests.pretrain.conftest import write_checkpoint

ARCHITECTURES = {
    "roberta": (),
    "roberta-prelayernorm": ("--model.architecture", "roberta-prelayernorm"),
    "bert": ("--model.architecture", "bert"),
    "modernbert": (
        *("--model.architecture", "modernbert"),
        *("--model.local_attention", "8"),
    ),
}
Exported = Callable[..., tuple[LateMaskModel, Path]]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_stock_transformers_loads_a_late_masked_encoder(exported: Exported, name: str) -> None:
    model, folder = exported(*ARCHITECTURES[name], "--masking.late_layers", "1")
    stock = AutoModel.from_pretrained(folder).eval()
    assert stock.config.model_type == name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (1, model.config.vocab_size - 1)
    short, long = torch.arange(4, 24)[None], torch.arange(40, 72)[None]
    with torch.no_grad():
        for ids in (short, long):
            theirs = stock(ids).last_hidden_state
            torch.testing.assert_close(model.encode(ids), theirs, atol=1e-5, rtol=0)
        padded = torch.cat([short, torch.ones(1, 12, dtype=torch.long)], dim=1)
        theirs = stock(padded, attention_mask=(padded != 1).long()).last_hidden_state[:, :20]
        torch.testing.assert_close(model.encode(short), theirs, atol=1e-5, rtol=0)
    AutoModelForSequenceClassification.from_pretrained(folder)
    AutoModelForMaskedLM.from_pretrained(folder)
    assert not [name for name in stock.state_dict() if "late" in name]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("embedding", ["shared", "separate"])
def test_vanilla_export_fills_masks_with_stock_transformers(
    exported: Exported, embedding: str, name: str
) -> None:
    vanilla = ("--masking.insert_layer", "0", "--masking.mask_embedding", embedding)
    _, folder = exported(*ARCHITECTURES[name], *vanilla)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = pipeline("fill-mask", model=str(folder), tokenizer=tokenizer, top_k=3)
    text = "the array of<mask> given"
    expected = theirs(text)
    (ours,) = fill_mask(LateMaskForMaskedLM.from_pretrained(folder), tokenizer, text, top_k=3)
    for a, b in zip(ours, expected, strict=True):
        assert a["token"] == b["token_str"]
        assert a["probability"] == pytest.approx(b["score"], abs=2e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_last_stage_at_layer_0_makes_a_stock_masked_lm(
    name: str, exported: Exported, tmp_path: Path
) -> None:
    """As soon as the run has come to that stage, and the card says so by itself."""
    stage = "[{start: 0.8, insert_layer: 0, rate: 0.15}]"
    model, folder = exported(*ARCHITECTURES[name], "--masking.schedule", stage)
    assert not [key for key in load_file(folder / "model.safetensors") if "decoder" in key]
    assert "No stock MLM head" in " ".join((folder / "README.md").read_text().split())
    last = write_checkpoint(RunFolder(folder.parent), 12, dict(model.named_parameters()))
    export(last, tmp_path / "last")
    card = " ".join((tmp_path / "last/README.md").read_text().split())
    assert "the stock fill-mask pipeline works" in card
    assert "50 % selected, 100 % of it predicted, of which 80 % [MASK] (from layer 1 on)" in card
    assert "from 80 % of the run on: 15 % selected" in card and "(from layer 0 on)" in card
    stock = AutoModelForMaskedLM.from_pretrained(tmp_path / "last").eval()
    model.masking = model.masking.at(1.0)
    ids = torch.randint(5, 250, (3, 20), generator=torch.Generator().manual_seed(0))
    masked = ids.clone()
    masked[:, [4, 9]] = model.config.token_id("mask")
    order = torch.tensor([i for i in range(20) if i not in (4, 9)] + [4, 9]).expand(3, -1)
    with torch.no_grad():
        theirs = stock(masked).logits[:, [4, 9]].log_softmax(-1)
        ours = model.logits(ids.gather(1, order[:, :18]), order, 2).log_softmax(-1)
    ordinary = slice(4, model.config.token_id("mask"))
    torch.testing.assert_close(ours[..., ordinary], theirs[..., ordinary], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_folder_gives_back_the_whole_model(exported: Exported, name: str) -> None:
    model, folder = exported(*ARCHITECTURES[name], "--masking.late_layers", "2")
    for name, tensor in load(folder).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_import_of_a_stock_roberta(tmp_path: Path) -> None:
    config = RobertaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, layer_norm_eps=1e-5, type_vocab_size=1,
    )  # fmt: skip
    torch.manual_seed(0)
    stock = RobertaForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    stock.save_pretrained(tmp_path / "stock")
    ours, ids = load(tmp_path / "stock").eval(), torch.randint(4, 49, (3, 20))
    with torch.no_grad():
        expected = stock.roberta(ids).last_hidden_state
        torch.testing.assert_close(ours.encode(ids), expected, atol=1e-5, rtol=0)
        positions = torch.arange(20).expand(3, -1)
        with_mask = torch.cat([ids[:, :17], torch.full((3, 3), 49)], dim=1)
        logits = ours.logits(ids[:, :17], positions, 3)
        torch.testing.assert_close(logits, stock(with_mask).logits[:, 17:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["shards", "pickle"])
def test_weights_are_read_in_every_form_that_the_hub_has(tmp_path: Path, form: str) -> None:
    config = RobertaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=34, type_vocab_size=1,
    )  # fmt: skip
    stock = RobertaForMaskedLM(config).eval()
    stock.save_pretrained(tmp_path, max_shard_size="8KB" if form == "shards" else "1GB")
    if form == "pickle":
        torch.save(stock.state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    assert not (tmp_path / "model.safetensors").exists()
    ids = torch.arange(4, 20)[None]
    with torch.no_grad():
        expected = stock.roberta(ids).last_hidden_state
        torch.testing.assert_close(load(tmp_path).eval().encode(ids), expected, atol=1e-5, rtol=0)
    for file in (*tmp_path.glob("*.safetensors*"), *tmp_path.glob("*.bin")):
        file.unlink()
    with pytest.raises(PretrainError, match="holds no weights"):
        load(tmp_path)


def test_the_model_card_and_the_refusal_to_write_over(exported: Exported) -> None:
    _, folder = exported()
    card = (folder / "README.md").read_text()
    assert "The [MASK]s entered at layer 1 of 2" in card
    assert "library_name: transformers" in card
    with pytest.raises(PretrainError, match="exists"):
        export(folder.parent, folder)


def test_fill_mask_command(exported: Exported, tmp_path: Path) -> None:
    _, folder = exported()
    out = tmp_path / "filled.jsonl"
    text = "the<mask> of a<mask> list"
    fill_mask_module.main([str(folder), "--text", text, "--top_k", "2", "--output", str(out)])
    line = json.loads(out.read_text())
    assert [len(guesses) for guesses in line["masks"]] == [2, 2]
    with pytest.raises(SystemExit):
        fill_mask_module.main([str(folder), "--text", "nothing to fill"])
    for top_k in ("0", "100000"):
        with pytest.raises(SystemExit) as ended:
            fill_mask_module.main([str(folder), "--text", text, "--top_k", top_k])
        assert ended.value.code == 2
