"""The README.md of a saved mask, which the Hub shows: what it answers, and how to load it."""

from pathlib import Path

from finetune.files import write_text
from finetune.masks.config import MaskConfig

_CARD = """\
---
base_model: {base}
library_name: peft
tags: [latemask, binary-mask]
---

# {task}: a mask on {base}

`adapter_model.safetensors` says which weights of {base} are kept and which are set to
0{share}; the encoder itself is not in this folder. The method is that of Zhao et al. 2020,
*Masking as an Efficient Alternative to Finetuning*.

- Answers: {labels}
- Input: {columns}{length}
- Masked matrices: {masked}

```python
import finetune.masks  # registers the method with PEFT
from peft import AutoPeftModelFor{model_class}

model = AutoPeftModelFor{model_class}.from_pretrained("{folder}"{outputs})
```

```sh
python -m finetune.predict new.txt --masks {folder}
python -m finetune.serve --masks {folder}
```
"""
CARD_FILE = "README.md"


def write_card(config: MaskConfig, folder: Path) -> None:
    """Write the card of the mask that was saved to `folder`, over PEFT's empty template."""
    sparsity = list((config.sparsity or {}).values())
    share = f" ({min(sparsity):.1%} to {max(sparsity):.1%} of each matrix)" if sparsity else ""
    text = _CARD.format(
        base=config.base_model_name_or_path,
        task=config.task or folder.name,
        share=share,
        labels=", ".join(config.labels or []) or "a score",
        columns=" and ".join(config.text_columns or ["text"]),
        length=f", at most {config.max_length} tokens" if config.max_length else "",
        masked=len(config.shapes or {}),
        outputs=_outputs(config),
        model_class=config.model_class or "SequenceClassification",
        folder=folder,
    )
    write_text(folder / CARD_FILE, text)


def _outputs(config: MaskConfig) -> str:
    """What tells the stock class how many outputs its head has; multiple choice has always one."""
    if config.model_class == "MultipleChoice":
        return ""
    return f", num_labels={len(config.labels or []) or 1}"
