"""Counting element codes in packed words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from prismaquant.types import Array

__all__ = ["code_counts"]

#: Words that are looked at together, a multiple of three: numpy widens them to 64 bits.
_RUN = 3 << 18


def code_counts(words: Array, bits: int) -> Array:
    """How often each code of ``bits`` bits (4, 6, 8 or 16) lies in ``words``; int64 ``[2 ** bits]``.

    The order of the codes in a word does not matter, but for six bits: those of OCP, four in three bytes.
    """
    flat = np.ascontiguousarray(words).reshape(-1).view(np.uint16 if bits == 16 else np.uint8)
    counts = np.zeros(1 << (bits if bits == 6 else flat.itemsize * 8), np.int64)
    for start in range(0, flat.size, _RUN):
        run = flat[start : start + _RUN]
        counts += np.bincount(_sextets(run) if bits == 6 else run, minlength=counts.size)
    if bits == 4:
        pairs = counts.reshape(16, 16)  # by high and by low nibble
        counts = pairs.sum(axis=0) + pairs.sum(axis=1)
    return counts


def _sextets(run: Array) -> Array:
    """The codes of six bits in bytes: four of them in three bytes, the first in the lowest bits."""
    triples = run.reshape(-1, 3).astype(np.uint32)
    together = triples[:, 0] | triples[:, 1] << 8 | triples[:, 2] << 16
    return np.concatenate([together >> shift & 63 for shift in (0, 6, 12, 18)])
