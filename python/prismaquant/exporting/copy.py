"""Every file of the source that is neither a weight nor the configuration, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

from prismaquant.model.folder import other_files

__all__ = ["copy_other_files", "nbytes"]


def copy_other_files(source: Path, folder: Path) -> None:
    """Copy them from ``source`` to ``folder``, each to the place that it has there."""
    for path in other_files(source):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def nbytes(source: Path) -> int:
    """Bytes of all of them."""
    return sum(path.stat().st_size for path in other_files(source))
