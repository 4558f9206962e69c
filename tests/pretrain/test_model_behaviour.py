"""What must and what must not change the encoder's answers; and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.pretrain.small_model import MASK, SEQ_LEN, VOCAB, corrupt, make_model, make_rows, tensors


def test_identity_of_a_masked_token_is_invisible() -> None:
    model = make_model(insert_layer=2)
    rows = make_rows()
    batch = corrupt(model, rows)
    changed = rows.copy()
    num_visible = batch.input_ids.shape[1]
    masked = batch.position_ids[:, num_visible:]
    np.put_along_axis(changed, masked, 4 + (np.take_along_axis(rows, masked, 1) + 7) % 50, axis=1)
    assert (changed != rows).any()
    other = corrupt(model, changed)
    # Bit-identical inputs to everything before the loss; only the labels differ.
    np.testing.assert_array_equal(other.input_ids, batch.input_ids)
    np.testing.assert_array_equal(other.position_ids, batch.position_ids)
    assert (other.labels != batch.labels).any()

    visible = batch.position_ids[:, num_visible - 1]
    changed = rows.copy()
    changed[np.arange(len(rows)), visible] = 4 + (rows[np.arange(len(rows)), visible] + 7) % 50
    seen = corrupt(model, changed)
    a, b = (
        model.logits(*tensors(x)[:2], x.labels.shape[1]).detach()  # type: ignore[arg-type]
        for x in (batch, seen)
    )
    assert not torch.equal(a, b)


def test_permuting_visible_tokens_with_their_positions_changes_nothing() -> None:
    model = make_model(insert_layer=2, late_layers=1)
    input_ids, positions, labels = tensors(corrupt(model, make_rows()))
    can_be_predicted = torch.arange(VOCAB) != MASK  # its logit is -1e4: one ulp there is 1e-3
    free = input_ids.shape[1] - (labels.shape[1] - (SEQ_LEN - input_ids.shape[1]))
    order = torch.cat([torch.randperm(free), torch.arange(free, SEQ_LEN)])
    with torch.no_grad():
        expected = model.logits(input_ids, positions, labels.shape[1])
        moved = model.logits(
            input_ids[:, order[: input_ids.shape[1]]], positions[:, order], labels.shape[1]
        )
        alone = model.logits(input_ids[:, order[: input_ids.shape[1]]], positions, labels.shape[1])
    torch.testing.assert_close(
        moved[..., can_be_predicted], expected[..., can_be_predicted], atol=1e-5, rtol=0
    )
    assert (alone - expected).abs().max() > 1e-3


def test_positions_are_the_original_ones() -> None:
    """Places 0, 5 and 9 use rows 2, 7 and 11 of the position table."""
    model = make_model()
    ids, places = torch.tensor([[0, 10, 11]]), torch.tensor([[0, 5, 9]])
    rows = model.word_embeddings.weight[ids] + model.position_embeddings.weight[places + 2]
    rows = rows + model.token_type_embeddings.weight[0]
    torch.testing.assert_close(model.embed(ids, places), model.embedding_norm(rows))


def test_mask_row_gets_no_gradient_through_the_input_when_separate() -> None:
    model = make_model(insert_layer=1, mask_embedding="separate")
    input_ids, positions, labels = tensors(corrupt(model, make_rows()))
    assert MASK not in input_ids
    state = model.predicted_states(input_ids, positions, labels.shape[1])
    state.pow(2).mean().backward()
    assert model.word_embeddings.weight.grad[MASK].abs().max() == 0  # type: ignore[index]
    assert model.mask_embedding.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("k", "d", "late_attention"),
    [(0, 0, "self"), (1, 0, "self"), (2, 1, "self"), (3, 2, "self"), (3, 2, "cross")],
)
def test_overfits_a_few_rows(k: int, d: int, late_attention: str) -> None:
    """The masks' content is learned whatever the insertion layer."""
    model = make_model(
        "roberta-prelayernorm",
        insert_layer=k,
        late_layers=d,
        late_attention=late_attention,
        rate=0.3,
    )
    model.config.dropout = 0.0
    batch = tensors(corrupt(model, make_rows(8)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(150):
        optimizer.zero_grad()
        output = model(*batch)
        output.loss_sum.div(batch[2].numel()).backward()
        optimizer.step()
    assert output.correct.item() / batch[2].numel() > 0.95
