"""Number formats and quantization schemes.

A *format* says how a weight is stored (``nvfp4``: what the codecs of the compiled core know). A *scheme* is a row of
the menu: a weight format together with what the engine does to the activations, under the preset name that
compressed-tensors uses (``NVFP4A16``). Two schemes with one weight format share one encoding.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from prismaquant.errors import FormatError

__all__ = [
    "BF16",
    "DEFAULT_MENU",
    "FormatInfo",
    "Scheme",
    "blocks",
    "format_info",
    "get_scheme",
    "list_formats",
    "list_schemes",
    "stored_bytes",
    "unknown_name",
    "why_not",
]


@dataclass(frozen=True, slots=True)
class FormatInfo:
    """Facts of one weight format, read from the C++ format list.

    Attributes
    ----------
    name
        Name in the C++ format list.
    element_bits, scale_bits
        Bits of one element and of one block scale (0: the format has no scales).
    block_rows, block_columns
        Shape of the block of elements that share one scale; 0 stands for the whole axis.
    has_global_scale
        Whether one float32 global scale (a divisor) is stored per tensor.
    extra
        What else is stored per tensor: ``"zero_points"``, ``"nested_scales"``, or ``""``.
    """

    name: str
    element_bits: int
    scale_bits: int
    block_rows: int
    block_columns: int
    has_global_scale: bool
    extra: str


#: `Scheme.activations` -> `Scheme.input_scale`.
_INPUT_SCALES: dict[str | None, str] = {"nvfp4": "input_global_scale", "fp8_static": "input_scale"}


@dataclass(frozen=True, slots=True)
class Scheme:
    """One row of the menu.

    Attributes
    ----------
    name
        The preset name of compressed-tensors, which is also the name on the command line and in the recipe (``FP8A16``,
        which has none, is named after the others; ``FP8_STATIC`` is its ``FP8``, which people use for both).
    weight_format
        Name of the weight format (see `list_formats`).
    activations
        ``None``: 16-bit activations. ``"nvfp4"``: dynamic NVFP4 with a calibrated static ``input_global_scale``.
        ``"fp8_static"``: FP8 with a calibrated static ``input_scale``. All others are dynamic: ``"mxfp4"``,
        ``"mxfp8"``, ``"fp8_token"`` and ``"int8_token"`` (per token), ``"fp8_group"`` (per token and 128 columns).
    multiple
        Engines serve only weights whose rows and columns are multiples of it.
    """

    name: str
    weight_format: str
    activations: Literal["nvfp4", "mxfp4", "mxfp8", "fp8_token", "fp8_static", "fp8_group", "int8_token"] | None = None
    multiple: int = 1

    @property
    def input_scale(self) -> str | None:
        """Suffix of the stored scale that is calibrated on inputs, F32 ``[1]``; ``None``: there is none."""
        return _INPUT_SCALES.get(self.activations)


BF16 = "BF16"
_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("NVFP4A16", "nvfp4"),
        Scheme("NVFP4", "nvfp4", activations="nvfp4"),
        Scheme("MXFP4A16", "mxfp4"),
        Scheme("MXFP4", "mxfp4", activations="mxfp4"),
        Scheme("W4A16", "int4_g128"),
        Scheme("MXFP8A16", "mxfp8_e4m3"),
        Scheme("MXFP8", "mxfp8_e4m3", activations="mxfp8"),
        Scheme("FP8A16", "fp8_e4m3_channel"),
        Scheme("FP8_DYNAMIC", "fp8_e4m3_channel", activations="fp8_token"),
        Scheme("FP8_STATIC", "fp8_e4m3_tensor", activations="fp8_static"),
        Scheme("FP8_BLOCK", "fp8_e4m3_block", activations="fp8_group", multiple=128),
        Scheme("W8A8", "int8_channel", activations="int8_token"),
        Scheme(BF16, "bf16"),
    )
}

#: The menu when none is given. All are priced; of those with one weight format, planning keeps what the activations
#: that it is asked for leave.
DEFAULT_MENU = ("NVFP4", "NVFP4A16", "FP8_DYNAMIC", "FP8A16", BF16)

#: Names that people use for a scheme beside its own.
_ALIASES = {"FP8": "FP8_DYNAMIC"}


def list_schemes() -> tuple[str, ...]:
    """Names of all schemes that can be exported."""
    return tuple(_SCHEMES)


def get_scheme(name: str) -> Scheme:
    """The scheme called ``name``.

    Raises
    ------
    FormatError
        If there is none; the message lists all and the nearest.
    """
    try:
        return _SCHEMES[_ALIASES.get(name, name)]
    except KeyError:
        raise unknown_name("scheme", name, _SCHEMES) from None


def list_formats() -> tuple[str, ...]:
    """Names of all weight formats, in the order of the C++ format list."""
    from prismaquant import _core

    return tuple(_core.list_formats())


def format_info(name: str) -> FormatInfo:
    """Facts of the weight format ``name``.

    Raises
    ------
    FormatError
        If there is none; the message lists all and the nearest.
    """
    from prismaquant import _core

    if name not in (known := list_formats()):
        error = unknown_name("format", name, known)
        if name in list_schemes():
            error.add_note(f"{name} is a scheme; its weights are of the format {get_scheme(name).weight_format!r}")
        raise error
    return FormatInfo(**_core.format_info(name))


def stored_bytes(scheme: Scheme, rows: int, columns: int) -> int:
    """Bytes of all tensors stored for a Linear ``[rows, columns]`` under ``scheme``: codes, block and global scales."""
    input_scale = 4 if scheme.input_scale else 0
    return _weight_bytes(scheme.weight_format, rows, columns) + input_scale


def blocks(scheme: Scheme) -> tuple[int, int]:
    """Rows and columns that must stay together under ``scheme``: those that share a scale, or that kernels need."""
    facts = format_info(scheme.weight_format)
    rows, columns = (max(1, size, scheme.multiple) for size in (facts.block_rows, facts.block_columns))
    return rows, columns


def why_not(scheme: Scheme, rows: int, columns: int) -> str | None:
    """Why a Linear ``[rows, columns]`` cannot take ``scheme``; ``None`` if it can."""
    if rows == 0 or columns == 0:
        return f"the weight is empty ({rows} x {columns})"
    for axis, size in (("rows", rows), ("columns", columns)):
        if size % scheme.multiple:
            return f"its {size} {axis} are not a multiple of {scheme.multiple}, which engines need"
    return _columns_misfit(scheme.weight_format, columns)


# A model has many Linears of few shapes.
@cache
def _weight_bytes(format: str, rows: int, columns: int) -> int:
    from prismaquant import _core

    return _core.stored_bytes(format, rows, columns)


@cache
def _columns_misfit(format: str, columns: int) -> str | None:
    from prismaquant import _core

    return _core.why_not(format, columns)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> FormatError:
    """The error for a name that does not exist: lists the known ones and the nearest."""
    names = sorted(known)
    begun = [n.lower() for n in names if n.lower().startswith(str(name).lower())]
    near = begun or difflib.get_close_matches(str(name).lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    nearest = next((n for n in names if near and n.lower() == near[0]), None)
    return FormatError(
        f"unknown {kind} {name!r}",
        hint=f"known: {', '.join(names)}" + (f"; did you mean {nearest!r}?" if nearest else ""),
    )
