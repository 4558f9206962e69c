"""The error that a user of `pretrain` can fix: shown as text, without a traceback."""

from __future__ import annotations

import sys
from typing import NoReturn


class PretrainError(Exception):
    """Something the user can fix; the text says what, where and how."""

    exit_code = 2


class RankLostError(PretrainError):
    """Another rank has ended; the same command resumes."""

    exit_code = 69  # EX_UNAVAILABLE


class NotSavedError(PretrainError):
    """The run ended, but its last checkpoint could not be written, or not uploaded."""

    exit_code = 74  # EX_IOERR


def require(condition: bool, message: str) -> None:
    """PretrainError with `message` unless `condition` holds."""
    if not condition:
        raise PretrainError(message)


def say(error: PretrainError) -> int:
    """Print the error as a user should see it; returns its exit code (2 for most)."""
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def exit_with(error: PretrainError) -> NoReturn:
    """`say` it, and end with its exit code."""
    raise SystemExit(say(error))
