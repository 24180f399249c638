"""Files of calibration data, and the bundled model that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["BUNDLED", "TEXT", "write"]

BUNDLED = Path(__file__).parents[3] / "examples" / "models" / "tiny-llama"
TEXT = "The river froze early that year. " * 40


def write(path: Path, content: str | np.ndarray) -> Path:
    """``content`` as text, or as an array of ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        np.save(path, content)
    return path
