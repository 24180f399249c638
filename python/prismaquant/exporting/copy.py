"""What is copied from the source byte for byte: tensors, and every file beside weights and configuration."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.model.folder import other_files

if TYPE_CHECKING:
    from prismaquant.exporting.shards import ShardWriter
    from prismaquant.model import Model, TensorInfo

__all__ = ["copy_other_files", "copy_tensor", "nbytes"]


def copy_tensor(model: Model, tensor: TensorInfo, writer: ShardWriter, name: str) -> None:
    """Write ``tensor`` of ``model`` as ``name``: by the system where it can, else a part at a time.

    Raises
    ------
    ModelError
        As `Model.read_bytes`.
    """
    with contextlib.suppress(FileNotFoundError), (model.path / tensor.file).open("rb") as file:
        if writer.copy(name, file.fileno(), tensor.begin):
            return
    writer.write_parts(name, model.read_parts(tensor))  # which says what is wrong with the file


def copy_other_files(source: Path, folder: Path) -> None:
    """Copy them from ``source`` to ``folder``, each to the place that it has there."""
    for path in other_files(source):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def nbytes(source: Path) -> int:
    """Bytes of all of them."""
    return sum(path.stat().st_size for path in other_files(source))
