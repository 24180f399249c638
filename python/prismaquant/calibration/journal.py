"""`Journal`: the layers of one probe that are finished, so that a killed run goes on where it stopped."""

from __future__ import annotations

import shutil
from dataclasses import astuple
from pathlib import Path

from prismaquant.errors import StageFileError
from prismaquant.files import sensitivity as file
from prismaquant.files.fingerprint import fingerprint
from prismaquant.files.sensitivity import Sensitivity
from prismaquant.rendering.cache import VERSION

__all__ = ["Journal"]


class Journal:
    """One sensitivity file per finished layer; a file that is damaged or of another probe counts as absent.

    Parameters
    ----------
    folder
        Where the files are; other probes may use the same folder.
    outline
        The result without its units.
    schemes
        The menu.
    """

    def __init__(self, folder: Path, outline: Sensitivity, schemes: tuple[str, ...]) -> None:
        self._outline = outline
        key = fingerprint([repr((*astuple(outline), *schemes, VERSION)).encode()])
        self.folder = Path(folder) / key.removeprefix("sha256:")[:16]

    def __repr__(self) -> str:
        return f"Journal({str(self.folder)!r})"

    def get(self, layer: int) -> Sensitivity | None:
        """What `put` was given, or ``None``."""
        try:
            found = file.read(self._path(layer))
        except StageFileError:
            return None
        return found if found.outline == self._outline else None

    def put(self, layer: int, part: Sensitivity) -> None:
        """Keep the units of ``layer``; a reader sees the whole file or none."""
        file.write(self._path(layer), part)

    def clear(self) -> None:
        """Forget all layers."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, layer: int) -> Path:
        return self.folder / f"layer-{layer:05}.safetensors"
