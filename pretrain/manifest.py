"""manifest.json of a data set (docs/formats.md, section A), as pretraining reads it."""

from __future__ import annotations

import hashlib
import json


def content_sha256(raw: bytes) -> str:
    """The identity of the data: SHA-256 of a manifest's bytes, as they are without `provenance`.

    How the data came about may change when the same shards are made again, and a checkpoint or a
    cache must not take them for others.
    """
    manifest = json.loads(raw)
    if "provenance" in manifest:
        del manifest["provenance"]
        raw = (json.dumps(manifest, indent=1) + "\n").encode()  # as the pipeline writes it
    return hashlib.sha256(raw).hexdigest()
