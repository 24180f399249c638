"""Fingerprints: sha256 sums that tie a stage file to the model and the data it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

__all__ = ["fingerprint"]


def fingerprint(parts: Iterable[bytes]) -> str:
    """``"sha256:<hex>"`` of ``parts``, each preceded by its length so that no two lists of parts collide."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return f"sha256:{digest.hexdigest()}"
