"""The error that a user of `pretrain` can mend: shown as text, without a traceback."""

from __future__ import annotations


class PretrainError(Exception):
    """Something the user can mend; the text says what, where and how."""

    exit_code = 2


def require(condition: bool, message: str) -> None:
    """PretrainError with `message` unless `condition` holds."""
    if not condition:
        raise PretrainError(message)
