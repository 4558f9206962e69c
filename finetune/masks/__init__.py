"""Binary masks over frozen weights as a PEFT method (Zhao et al. 2020; docs/formats.md, section C).

Importing this package registers the method "mask", after which PEFT's own functions work:
`get_peft_model(model, MaskConfig())`, `save_pretrained`, `PeftModel.from_pretrained(base, folder)`,
`merge_and_unload()`, `disable_adapter()`, `add_adapter`, `set_adapter`. What is saved is which
weights are kept (`coding.py`), not scores.
"""

from finetune.masks.config import MaskConfig
from finetune.masks.method import MaskModel

__all__ = ["MaskConfig", "MaskModel"]
