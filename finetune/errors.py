"""The one error a user of `finetune` can cause: shown as text, without a traceback, exit code 2."""


class FinetuneError(Exception):
    """A mistake in the input: says which file, flag, model or mask, what was found and expected."""
