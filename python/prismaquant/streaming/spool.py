"""`Spool`: hidden states and gradients that wait for their turn, in memory or in files."""

from __future__ import annotations

from pathlib import Path

import torch

from prismaquant.errors import RefusedError

__all__ = ["Spool"]


class Spool:
    """float32 tensors by name.

    Parameters
    ----------
    folder
        Where each tensor is a file until it is taken; ``None``: they stay in memory. The values are the same.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._held: dict[str, torch.Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}

    def __repr__(self) -> str:
        return f"Spool({len(self._shapes)} tensors in {self.folder or 'memory'})"

    def put(self, name: str, values: torch.Tensor) -> None:
        """Keep ``values`` under ``name``, in place of what was there.

        Raises
        ------
        RefusedError
            The file cannot be written.
        """
        self._shapes[name] = values.shape
        if self.folder is None:
            self._held[name] = values.cpu()
            return
        try:
            values.contiguous().cpu().numpy().tofile(self._path(name))
        except OSError as cause:
            raise RefusedError(
                f"cannot be written ({cause.strerror or cause})",
                where=str(self._path(name)),
                hint="free some space, choose another work folder (--work-dir), or allow more memory (--max-memory)",
            ) from cause

    def get(self, name: str) -> torch.Tensor:
        """What was put last under ``name``; not to be changed."""
        if self.folder is None:
            return self._held[name]
        shape = self._shapes[name]
        return torch.from_file(str(self._path(name)), shared=False, size=shape.numel()).view(shape)

    def take(self, name: str) -> torch.Tensor:
        """As `get`; the spool forgets it."""
        values = self.get(name)
        del self._shapes[name]
        if self.folder is None:
            del self._held[name]
        else:
            self._path(name).unlink()  # the mapped pages stay readable until the tensor is gone
        return values

    def clear(self) -> None:
        """Forget everything that is left, half-written files included."""
        if self.folder is not None:
            for name in self._shapes:
                self._path(name).unlink(missing_ok=True)
        self._held.clear()
        self._shapes.clear()

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.f32"
