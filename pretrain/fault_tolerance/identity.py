"""What makes a run the same run after a restart: all of its config but what may change."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pretrain.config import PretrainConfig
from pretrain.errors import PretrainError

# Between restarts of one run these may change; everything else is its identity.
_MAY_CHANGE = (
    "run.",
    "budget.",
    "data.path",
    "data.cache_dir",
    "data.cache_gb",
    "data.retry_seconds",
    "data.micro_batch_size",
    "data.verify",
)
_IDENTITY = ("run.seed", "run.branch_from")


def require_same_run(
    begun: PretrainConfig, config: PretrainConfig, where: Path | str, key: str
) -> list[str]:
    """What differs between a run's config and that of this start, which may be its.

    Args:
        begun: of the run.
        config: of this start.
        where: the run lies.
        key: of the config that says so.

    Raises:
        PretrainError: what makes it another run has changed; each difference is named.
    """
    changed = differences(begun, config)
    if refused := [text for name, text in changed.items() if not may_change(name)]:
        raise PretrainError(
            f"{where} holds a run begun with another config:\n  "
            + "\n  ".join(refused)
            + f"\nchoose another {key}, or set these back to resume it"
        )
    return list(changed.values())


def differences(old: PretrainConfig, new: PretrainConfig) -> dict[str, str]:
    """ "group.key" -> "group.key: was A, is B" for every field that differs."""
    before, after = asdict(old), asdict(new)
    return {
        f"{group}.{key}": f"{group}.{key}: was {value}, is {after[group][key]}"
        for group, fields in before.items()
        for key, value in fields.items()
        if value != after[group][key]
    }


def may_change(key: str) -> bool:
    """Whether a run may be resumed with another value of `group.key`."""
    return key.startswith(_MAY_CHANGE) and key not in _IDENTITY
