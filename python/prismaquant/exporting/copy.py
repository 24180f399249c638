"""Every file of the source that is neither a weight nor the configuration, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prismaquant.model import Model

__all__ = ["copy_other_files", "nbytes"]


def copy_other_files(model: Model, folder: Path) -> None:
    """Copy them into ``folder``, each to the place that it has below the folder of ``model``."""
    for path in model.other_files():
        target = folder / path.relative_to(model.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def nbytes(model: Model) -> int:
    """Bytes of all of them."""
    return sum(path.stat().st_size for path in model.other_files())
