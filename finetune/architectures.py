"""Where an encoder keeps the matrices that masks are learned for (methods §2.1, the table).

Names are relative to the sequence classification model's base (`model.base_model_prefix`), except
`classifier`, which is relative to the whole model.
"""

from dataclasses import dataclass

from finetune.errors import FinetuneError

MATRICES = ("Q", "K", "V", "AO", "I", "O")


@dataclass(frozen=True)
class Architecture:
    """Module names of one family; `matrices` in the order of MATRICES, within one block."""

    block: str
    matrices: tuple[str, ...]
    pooler: tuple[str, ...]
    classifier: tuple[str, ...]


BERT_BLOCK = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
DISTILBERT_BLOCK = (
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "ffn.lin1",
    "ffn.lin2",
)
# RoBERTa's classifier reads the first token itself: no pooler, two matrices in the head.
ROBERTA = Architecture("encoder.layer", BERT_BLOCK, (), ("classifier.dense", "classifier.out_proj"))
ARCHITECTURES = {
    "bert": Architecture("encoder.layer", BERT_BLOCK, ("pooler.dense",), ("classifier",)),
    "roberta": ROBERTA,
    "roberta-prelayernorm": ROBERTA,
    "xlm-roberta": ROBERTA,
    "distilbert": Architecture(
        "transformer.layer", DISTILBERT_BLOCK, (), ("pre_classifier", "classifier")
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
