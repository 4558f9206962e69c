"""Fill <mask>s in text with a late-masked model, inserting them at the layer where they belong.

    python -m pretrain.fill_mask runs/NAME/hf --text "Return the <mask> of two arrays." --top_k 5

One JSON line a text: the text, and for each <mask> the most likely tokens with probabilities.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain.distribution import answer_version

if __name__ == "__main__":
    answer_version(sys.argv[1:])  # before the seconds of imports below

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from pretrain.auto import LateMaskForMaskedLM
from pretrain.errors import PretrainError, exit_with


@torch.no_grad()
def fill_mask(
    model: LateMaskForMaskedLM, tokenizer: PreTrainedTokenizerBase, text: str, top_k: int = 5
) -> list[list[dict[str, Any]]]:
    """For each <mask> of `text`, in order: the `top_k` tokens as {"token", "probability"}.

    Raises:
        PretrainError: no <mask> in the text, more tokens than positions, or an impossible `top_k`.
    """
    input_ids = torch.tensor(tokenizer(text)["input_ids"])
    is_masked = input_ids == tokenizer.mask_token_id
    if not is_masked.any():
        raise PretrainError(f"no {tokenizer.mask_token} in {text!r}")
    logits = model(input_ids[None]).logits[0, is_masked]
    if not 1 <= top_k <= logits.shape[-1]:
        raise PretrainError(f"--top_k is {top_k}; 1 to {logits.shape[-1]}, the vocabulary's size")
    probabilities, ids = logits.softmax(dim=-1).topk(top_k)
    return [
        [
            {"token": tokenizer.decode([token]), "probability": round(probability, 4)}
            for token, probability in zip(sequence_ids, row, strict=True)
        ]
        for sequence_ids, row in zip(ids.tolist(), probabilities.tolist(), strict=True)
    ]


def main(argv: Sequence[str]) -> None:
    """Fill the masks of every --text, or of every line of standard input."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.fill_mask", description=__doc__)
    parser.add_argument("folder", type=Path, help="hf/ folder of a run, or a stock RoBERTa")
    parser.add_argument("--text", action="append", help="text with <mask>s; may be repeated")
    parser.add_argument("--top_k", type=int, default=5, help="tokens shown for a mask")
    parser.add_argument("--output", type=Path, help="JSON lines file; default: standard output")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, force=True)
    hf_logging.disable_progress_bar()
    try:
        model = LateMaskForMaskedLM.from_pretrained(args.folder)
        tokenizer = AutoTokenizer.from_pretrained(args.folder)
        texts = args.text or [line.strip() for line in sys.stdin if line.strip()]
        lines = [
            json.dumps({"text": text, "masks": fill_mask(model, tokenizer, text, args.top_k)})
            for text in texts
        ]
    except PretrainError as error:
        exit_with(error)
    if args.output:
        args.output.write_text("\n".join(lines) + "\n")
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
