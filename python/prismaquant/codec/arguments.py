"""Arguments that codecs and solvers share: checked, and as the compiled core takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from prismaquant.errors import ArgumentError, MissingExtraError
from prismaquant.formats import FormatInfo, unknown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "WEIGHTED_RULES",
    "DtypeName",
    "ScaleRule",
    "numpy_dtype",
    "require_global_scale",
    "require_rule",
    "thread_count",
]

#: Rules for block scales; which of them a format takes: `Codec.scale_rules`.
ScaleRule: TypeAlias = Literal["amax", "sweep", "four_over_six", "floor", "ceil", "given"]

#: The rules whose choice depends on the importance of the elements.
WEIGHTED_RULES = ("sweep", "four_over_six")

#: Dtypes that codecs decode to.
DtypeName: TypeAlias = Literal["float32", "bfloat16", "float16"]


def thread_count(threads: int | None) -> int:
    """The argument ``threads`` as the compiled core takes it: 0 stands for all cores."""
    if threads is not None and threads < 1:
        raise ArgumentError(f"threads: {threads}, expected at least 1, or None for all cores")
    return threads or 0


def require_global_scale(info: FormatInfo, global_scale: object) -> None:
    """Refuse a global scale that was given for a format without one."""
    if global_scale is not None and not info.has_global_scale:
        raise ArgumentError(f"global_scale: {global_scale} was given, but {info.name} has none")


def require_rule(info: FormatInfo, known: Sequence[str], rule: str, global_scale: object) -> None:
    """Refuse a scale rule that the format does not take, and a global scale that does not go with it."""
    if rule not in known:
        raise unknown_name("scale rule", rule, known)
    require_global_scale(info, global_scale)
    if rule == "given" and info.has_global_scale and global_scale is None:
        raise ArgumentError(f"global_scale: scales of {info.name} are given, so their global scale is needed")


def numpy_dtype(name: str) -> Any:
    """The dtype ``name`` of a decoded array; bfloat16 is that of ml_dtypes."""
    import numpy as np

    if name in ("float32", "float16"):
        return np.dtype(name)
    if name != "bfloat16":
        raise ArgumentError(f"dtype: {name!r} is not supported; use 'float32', 'bfloat16' or 'float16'")
    try:
        import ml_dtypes
    except ImportError:
        raise MissingExtraError(
            "dtype: numpy has no bfloat16, ml_dtypes is not installed", hint="pip install ml_dtypes, or give out="
        ) from None
    return np.dtype(ml_dtypes.bfloat16)
