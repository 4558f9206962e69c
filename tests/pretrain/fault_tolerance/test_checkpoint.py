"""The format: any stretch of any tensor from parts cut anywhere, and damage that is found."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from pretrain.budget import BudgetConfig, Progress
from pretrain.errors import PretrainError
from pretrain.fault_tolerance.checkpoint import DAMAGE, Checkpoint, State, part_name, write_part
from pretrain.recipe import MaskingConfig, MaskingStage

WHOLE = torch.arange(24.0)


def write(folder: Path, cuts: list[int]) -> Checkpoint:
    """`WHOLE` as parameter "w" [4, 6], cut at `cuts`, one part a stretch."""
    folder.mkdir(parents=True)
    edges = [0, *sorted(set(cuts)), 24]
    parts = {}
    for rank, (begin, end) in enumerate(pairwise(edges)):
        name = part_name(rank, len(edges) - 1)
        parts[name] = write_part(
            folder / name, {f"weight/w@{begin}": end - begin}, WHOLE[begin:end]
        )
    progress = Progress(step=3, sequences=48, hours=0.1)
    state = State(progress=progress, shapes={"w": [4, 6]}, losses=[0.1, 7 / 3], parts=parts)
    state.write(folder / "state.json")
    return Checkpoint.open(folder, verify=True)


@given(
    cuts=st.lists(st.integers(1, 23), max_size=6),
    start=st.integers(0, 23),
    count=st.integers(1, 24),
)
def test_any_stretch_of_any_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], start: int, count: int
) -> None:
    checkpoint = write(tmp_path_factory.mktemp("cut") / "step", cuts)
    count = min(count, 24 - start)
    assert torch.equal(checkpoint.read("weight", "w", start, count), WHOLE[start : start + count])
    assert torch.equal(checkpoint.weights()["w"], WHOLE.view(4, 6))
    with pytest.raises(ValueError, match="ends at element 24"):
        checkpoint.read("weight", "w", start, 25)


def test_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    state = write(tmp_path / "step", [7]).state
    assert state.progress == Progress(step=3, sequences=48, hours=0.1)
    assert state.losses == [0.1, 7 / 3]


def test_the_last_masking_is_that_of_the_last_step(tmp_path: Path) -> None:
    """A stage that begins where the checkpoint was made has trained nothing."""
    late = MaskingConfig(
        insert_layer=2, schedule=[MaskingStage(start=0.5, insert_layer=0, rate=0.15)]
    )
    budget = BudgetConfig(steps=6)
    checkpoint = write(tmp_path / "step", [7])  # step 3 of 6
    checkpoint.state.losses_stage = [0.5, 2.0]
    assert checkpoint.last_masking(late, budget).insert_layer == 2
    checkpoint.state.losses_stage = [0.15, 0.0]
    assert checkpoint.last_masking(late, budget).insert_layer == 0
    checkpoint.state.losses_stage = []  # of a release that did not say
    assert checkpoint.last_masking(late, budget).insert_layer == 0


def test_parts_are_what_safetensors_itself_reads(tmp_path: Path) -> None:
    write(tmp_path / "step", [10])
    found = load_file(tmp_path / "step" / part_name(1, 2))
    assert torch.equal(found["weight/w@10"], WHOLE[10:])


@pytest.mark.parametrize("file", [part_name(0, 2), "state.json"])
@pytest.mark.parametrize("harm", ["flip a byte", "cut off", "remove"])
def test_every_damage_is_found(tmp_path: Path, file: str, harm: str) -> None:
    write(tmp_path / "step", [10])
    victim = tmp_path / "step" / file
    content = bytearray(victim.read_bytes())
    if harm == "flip a byte":
        content[-3] ^= 0x40
    if harm == "remove":
        victim.unlink()
    else:
        victim.write_bytes(content[:-5] if harm == "cut off" else content)
    with pytest.raises(DAMAGE):
        Checkpoint.open(tmp_path / "step", verify=True)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "step", [])
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(torch.zeros(4, 6))
    checkpoint.load_into(model)
    assert torch.equal(model.w, WHOLE.view(4, 6))
    model.w = torch.nn.Parameter(torch.zeros(6, 4))
    with pytest.raises(PretrainError, match=r"w has shape \[4, 6\] there, \[6, 4\]"):
        checkpoint.load_into(model)


def test_a_checkpoint_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """Its state.json has fewer fields: what they would say is taken to be unknown."""
    checkpoint = write(tmp_path / "c", [])
    file = tmp_path / "c" / "state.json"
    content = json.loads(file.read_text())
    for added_later in ("losses_stage", "log_sums"):
        del content[added_later]
    file.write_text(json.dumps(content))
    state = Checkpoint.open(tmp_path / "c", verify=True).state
    assert state.progress == checkpoint.progress
    assert (state.losses, state.losses_stage, state.log_sums) == ([0.1, 7 / 3], [], {})
