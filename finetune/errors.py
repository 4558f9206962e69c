"""The one error a user of `finetune` can cause: shown as text, without a traceback, exit code 2."""


class FinetuneError(Exception):
    """A mistake in the input (file, flag, model, mask) with what was found and what would be right."""
