"""What is masked and how: PEFT's configuration of the method, and `adapter_config.json`."""

from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from peft.config import PeftConfig
from peft.utils import PeftType

from finetune.choices import BINARIZERS, ENCODINGS, GRANULARITIES, INITS, MATRICES
from finetune.errors import FinetuneError
from finetune.masks.binarizers import Rule


def _add_peft_type() -> None:
    """Add MASK to PEFT's closed enum: `register_peft_method` wants a member of it, and PEFT offers
    no other door. This is the one place that reaches into it.
    """
    member: Any = str.__new__(PeftType, "MASK")
    member._name_ = member._value_ = "MASK"
    type.__setattr__(PeftType, "MASK", member)
    PeftType._member_names_.append("MASK")
    PeftType._member_map_["MASK"] = member
    PeftType._value2member_map_["MASK"] = member


_add_peft_type()

FORMAT_VERSION = 2
LARGEST = 2**31 - 1  # positions are stored and counted as int32
NUMBERS = ("initial_sparsity", "target_sparsity", "sparsity_push", "threshold", "init_scale")
DTYPES = ("float32", "bfloat16")


@dataclass
class MaskConfig(PeftConfig):
    """The fields after `labels` are filled in by us; they describe a saved mask.

    `target_modules` ("all-linear", a list of names or their ends, or a regular expression, as in
    PEFT) overrides `blocks`, `matrices` and `mask_pooler`.
    """

    target_modules: list[str] | str | None = None
    blocks: list[Any] | str | None = field(
        default=None, metadata={"help": "block numbers, or top:N, or bottom:N; see architectures"}
    )
    matrices: list[str] = field(default_factory=lambda: list(MATRICES))
    mask_pooler: bool = True
    mask_classifier: bool = field(
        default=True, metadata={"help": "mask the head's weights; else they stay as they are"}
    )
    train_classifier: bool = field(
        default=False, metadata={"help": "train the head's weights instead of masking them"}
    )
    granularity: str = field(
        default="weight",
        metadata={"help": "what one bit governs: a weight, an attention head's rows, a matrix"},
    )
    binarizer: str = field(default="threshold", metadata={"help": " or ".join(BINARIZERS)})
    init: str = field(default="uniform", metadata={"help": " or ".join(INITS)})
    initial_sparsity: float = field(default=0.05, metadata={"help": "p0, share of zeros at start"})
    target_sparsity: float | None = field(
        default=None, metadata={"help": "share of zeros that each matrix is pushed towards"}
    )
    sparsity_push: float = field(
        default=1.0, metadata={"help": "1 / the distance at which push and gradient are equal"}
    )
    threshold: float = field(
        default=0.01, metadata={"help": "τ: a score above it keeps its weight"}
    )
    init_scale: float = field(default=0.02, metadata={"help": "c: the lowest uniform start is -c"})
    seed: int = field(default=0, metadata={"help": "of the initial scores, equal for every task"})
    frozen_dtype: str | None = field(
        default=None, metadata={"help": "cast the base to float32 or bfloat16; None: as loaded"}
    )
    recompute_blocks: int = field(
        default=0,
        metadata={"help": "uppermost blocks that are computed again in the backward pass"},
    )
    encoding: str = field(default="gaps", metadata={"help": "gaps (n H(p) bits) or bits (n bits)"})
    stores_scores: bool = field(
        default=False, metadata={"help": "save the scores themselves, to train on from"}
    )
    head_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "modules of the task's own, saved whole; default: all outside the base, "
            "and those inside that its checkpoint lacks"
        },
    )
    task: str | None = None
    labels: list[str] | None = None
    text_columns: list[str] | None = field(
        default=None, metadata={"help": "of the training data: a text, or it and its pair"}
    )
    max_length: int | None = field(default=None, metadata={"help": "of training, in tokens"})
    model_class: str | None = field(default=None, metadata={"help": "as in AutoModelForNAME"})
    base_sha256: str | None = None
    masks_sha256: str | None = None
    shapes: dict[str, list[int]] | None = field(default=None, metadata={"help": "of each mask"})
    sparsity: dict[str, float] | None = field(default=None, metadata={"help": "of each mask"})
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType("MASK")
        for name, values in (
            ("granularity", GRANULARITIES), ("binarizer", BINARIZERS), ("init", INITS),
            ("encoding", ENCODINGS), ("frozen_dtype", (None, *DTYPES)),
        ):  # fmt: skip
            if getattr(self, name) not in values:
                self._refuse(name, f"one of {', '.join(map(str, values))}")
        self._check_numbers()
        unknown = [name for name in self.matrices if name not in MATRICES]
        if unknown:
            raise FinetuneError(f"matrices: found {unknown}, expected some of {list(MATRICES)}.")
        if not 0 < self.initial_sparsity < 1:
            self._refuse("initial_sparsity", "between 0 and 1; for none, init: ones")
        if self.target_sparsity is not None and not 0 <= self.target_sparsity < 1:
            self._refuse("target_sparsity", "from 0 to below 1")
        if self.recompute_blocks < 0:
            self._refuse("recompute_blocks", "0 or more")
        if self.binarizer == "topk" and self.target_sparsity is not None:
            self._refuse("target_sparsity", "None: topk keeps initial_sparsity exactly")
        if self.binarizer == "topk" and self.init == "ones":
            self._refuse("init", "another one: topk always drops initial_sparsity of the weights")
        if self.granularity == "head" and set(self.matrices) - set("QKV"):
            if set(self.matrices) != set(MATRICES):
                self._refuse("matrices", "some of Q, K, V, the matrices that have heads")
            self.matrices = ["Q", "K", "V"]
        if self.train_classifier:
            self.mask_classifier = False
        if self.format_version != FORMAT_VERSION:
            self._refuse("format_version", f"{FORMAT_VERSION}, the one this program reads")
        self._check_stored()

    def _check_numbers(self) -> None:
        for name in NUMBERS:
            value = getattr(self, name)
            is_open = value is None and name == "target_sparsity"
            if not is_open and (not isinstance(value, Real) or isinstance(value, bool)):
                self._refuse(name, "a number")
        for name in ("seed", "recompute_blocks"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool):
                self._refuse(name, "a whole number")

    def _check_stored(self) -> None:
        """What a file says of itself may have been written by anyone."""
        for name in ("task", "model_class", "base_model_name_or_path", "base_sha256"):
            if not isinstance(getattr(self, name), str | None):
                self._refuse(name, "a string")
        if self.max_length is not None and (
            type(self.max_length) is not int or self.max_length < 1
        ):
            self._refuse("max_length", "a whole number from 1")
        for name in ("labels", "text_columns", "head_modules"):
            values = getattr(self, name)
            if values is not None and not (
                isinstance(values, list) and all(isinstance(value, str) for value in values)
            ):
                self._refuse(name, "a list of strings")
        if not isinstance(self.shapes, dict | None):
            self._refuse("shapes", "[rows, columns] by layer")
        for layer, shape in (self.shapes or {}).items():
            is_pair = isinstance(shape, list) and [type(size) for size in shape] == [int, int]
            if not is_pair or min(shape) < 1 or shape[0] * shape[1] > LARGEST:
                raise FinetuneError(
                    f"shapes, {layer}: found {str(shape)[:60]}, expected [rows, columns] of "
                    f"{LARGEST:,} elements at most."
                )

    def _refuse(self, name: str, expected: str) -> None:
        raise FinetuneError(f"{name}: found {getattr(self, name)!r}, expected {expected}.")

    @property
    def rule(self) -> Rule:
        """How scores become bits."""
        return Rule(
            self.binarizer,
            self.threshold,
            self.initial_sparsity,
            self.target_sparsity,
            self.sparsity_push,
        )
