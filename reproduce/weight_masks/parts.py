"""A figure's parts that take long, kept: what was computed once is read the next time."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.files import read_json, write_json


def once(folder: Path, name: str, settings: dict[str, Any], compute: Callable[[], Any]) -> Any:
    """What `compute()` returns, as JSON gives it back; kept in FOLDER/NAME-HASH.json.

    The hash is over `settings`, everything that decides the result: with other settings it is
    another part, and neither is written over.
    """
    text = json.dumps(settings, sort_keys=True)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"settings": settings, "result": compute()})
    return read_json(path)["result"]
