"""Which formats a test can go over."""

from __future__ import annotations

from prismaquant import _core
from prismaquant.formats import list_formats


def formats_for(columns: int) -> tuple[str, ...]:
    """All formats whose groups divide a row of so many columns."""
    return tuple(name for name in list_formats() if _core.why_not(name, columns) is None)
