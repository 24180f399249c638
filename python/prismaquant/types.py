"""Type names shared by the public functions and the stub of the compiled module. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[np.generic]
else:
    Array = Any

__all__ = ["Array", "PathLike", "Tensor", "TowerData"]

PathLike: TypeAlias = str | os.PathLike[str]

#: What the codecs accept: a numpy array (float32, float16, or ml_dtypes.bfloat16), or any CPU object with
#: ``__dlpack__`` (a tensor of torch or JAX), of two axes or, for codecs, more.
Tensor: TypeAlias = Any

#: Prompts with images or audio: files, folders, or what a processor returned (name of an argument -> tensor).
TowerData: TypeAlias = PathLike | Mapping[str, Any] | Sequence[PathLike | Mapping[str, Any]]
