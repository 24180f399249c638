"""Byte sizes as people write them: ``"20GiB"`` <-> 21474836480."""

from __future__ import annotations

import re
from fractions import Fraction

from prismaquant.errors import ArgumentError

__all__ = ["format_bytes", "parse_bytes"]

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")


def parse_bytes(text: str | int) -> int:
    """Bytes in ``text``: a number with an optional unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB).

    Raises
    ------
    ArgumentError
        If the text is not a size.

    Examples
    --------
    >>> parse_bytes("1.5GiB")
    1610612736
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ArgumentError(f"{text!r} is not a size", hint="write a number and a unit, for example 20GiB or 800MB")
    return int(Fraction(match[1]) * factor)


def format_bytes(count: int) -> str:
    """``count`` in the largest binary unit that leaves a number >= 1, with three significant digits.

    Examples
    --------
    >>> format_bytes(21474836480)
    '20.0 GiB'
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1023.5 or unit == "TiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
