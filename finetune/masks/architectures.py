"""Where an encoder keeps the matrices that masks (and LoRA) work on."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.errors import FinetuneError

MATRICES = ("Q", "K", "V", "AO", "I", "O")


@dataclass(frozen=True)
class Architecture:
    """Module names of one family, relative to the model's base (`model.base_model_prefix`).

    `matrices` are within one block and in the order of MATRICES; a fused matrix stands more than
    once. The pooler and the head need no table: the first is called `pooler.dense` wherever there
    is one, the second is every linear layer outside the base.
    """

    blocks: str
    matrices: tuple[str, ...]


BERT = Architecture(
    "encoder.layer",
    (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
)
ARCHITECTURES = {
    "bert": BERT,
    "roberta": BERT,
    "roberta-prelayernorm": BERT,
    "xlm-roberta": BERT,
    "camembert": BERT,
    "electra": BERT,
    "distilbert": Architecture(
        "transformer.layer",
        (
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "ffn.lin1",
            "ffn.lin2",
        ),
    ),
    "modernbert": Architecture(
        "layers", ("attn.Wqkv", "attn.Wqkv", "attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
    ),
}


def find_architecture(model_type: str) -> Architecture:
    """The module names of `model_type`; FinetuneError with the known ones otherwise."""
    if model_type not in ARCHITECTURES:
        raise FinetuneError(
            f"Masks know the matrices of {', '.join(ARCHITECTURES)}; found model_type "
            f"{model_type!r}. Name its linear modules with target_modules."
        )
    return ARCHITECTURES[model_type]


def default_blocks(depth: int) -> list[int]:
    """Blocks masked by default: the paper's 2..11 of 12, 2..5 of 6; all of a shallower encoder.

    The lowest two blocks carry what all tasks share; an encoder of fewer than six has none to
    spare.
    """
    return list(range(2 if depth >= 6 else 0, depth))


def chosen_blocks(blocks: Sequence[int | str] | str | None, depth: int) -> list[int]:
    """Indices from numbers, `"top:N"` (the uppermost N) or `"bottom:N"`; None: the default.

    `top:0` is none: only what stands around the blocks is masked then.
    """
    if blocks is None:
        return default_blocks(depth)
    words = [blocks] if isinstance(blocks, str) else list(map(str, blocks))
    wrong = FinetuneError(
        f"blocks: found [{', '.join(words)}]; this encoder has 0 to {depth - 1}. Name "
        f"some of these, top:N or bottom:N (N from 0 to {depth})."
    )
    if len(words) == 1 and words[0].startswith(("top:", "bottom:")):
        side, _, number = words[0].partition(":")
        if not number.isdigit() or int(number) > depth:
            raise wrong
        count = int(number)
        return list(range(count) if side == "bottom" else range(depth - count, depth))
    if not all(word.isdigit() and int(word) < depth for word in words):
        raise wrong
    return sorted({int(word) for word in words})
