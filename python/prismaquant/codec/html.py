"""How codecs and their results show themselves in a notebook: a table and a picture, as HTML without style sheets."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from prismaquant.formats import FormatInfo, format_info

if TYPE_CHECKING:
    from prismaquant.codec.codec import Codec
    from prismaquant.codec.error import ErrorSummary
    from prismaquant.codec.quantized import Quantized

__all__ = ["codec_html", "error_html", "facts", "quantized_html"]


def facts(info: FormatInfo) -> list[str]:
    """What is stored in the format, in words."""
    found = [f"{info.element_bits}-bit elements"]
    if info.scale_bits:
        rows, columns = info.block_rows, info.block_columns
        per = {(0, 0): "tensor", (1, 0): "row"}.get((rows, columns))
        per = per or (f"group of {columns} along a row" if rows == 1 else f"block of {rows} x {columns}")
        found.append(f"one {info.scale_bits}-bit scale per {per}")
    if info.extra:
        found.append(info.extra.replace("_", " "))
    if info.has_global_scale:
        found.append("one global scale")
    return found


def codec_html(codec: Codec) -> str:
    """The facts of a format, and its code grid: what an element can be under scale 1."""
    import numpy as np

    from prismaquant.codec import svg

    values = codec.values.astype(np.float64)
    grid = np.unique(values[np.isfinite(values)]) + 0.0  # zero of both signs is one value
    rows = [
        ("stores", ", ".join(facts(codec.info))),
        ("scale rules", ", ".join(codec.scale_rules)),
        ("element values", f"{grid.size}, from {grid[0]:g} to {grid[-1]:g}"),
        ("smallest positive", f"{grid[grid > 0][0]:g}"),
    ]
    return _document(codec.name, rows, svg.grid(grid, f"values of an element of {codec.name} under scale 1"))


def quantized_html(quantized: Quantized) -> str:
    """What a quantized tensor holds, and how often each value of the code grid occurs in it."""
    from prismaquant import _core
    from prismaquant.codec import svg

    info = format_info(quantized.format)
    arrays = {name: getattr(quantized, name) for name in ("codes", "scales", "extra")}
    scale = quantized.global_scale
    rows = [
        ("shape", " x ".join(map(str, quantized.shape))),
        ("bits per weight", f"{quantized.bits_per_weight:.3f} ({quantized.nbytes:,} bytes)"),
        *((name, f"{array.dtype} {list(array.shape)}") for name, array in arrays.items() if array is not None),
    ]
    if scale is not None:
        rows.append(("global scale", f"{scale:g}" if isinstance(scale, float) else f"float32 {list(scale.shape)}"))
    if quantized.axis != -1:
        rows.append(("groups along", f"axis {quantized.axis}"))
    values = _core.element_values(quantized.format)
    label = f"share of the elements with each value of {info.name} (under scale 1)"
    return _document(f"Quantized: {info.name}", rows, svg.counts(values, quantized.code_counts(), label))


def error_html(error: ErrorSummary) -> str:
    """The numbers of an error, and its histogram if there is one."""
    from prismaquant.codec import svg

    relative = error.squared_error / error.squared_weight if error.squared_weight else 0.0
    rows = [
        ("signal to noise", f"{error.snr_db:.2f} dB"),
        ("squared error", f"{error.squared_error:.6g} ({100 * relative:.3g} % of the squared weights)"),
        ("largest error", f"{error.max_error:.6g}"),
    ]
    picture = ""
    if error.histogram is not None:
        picture = svg.histogram(error.histogram.edges, error.histogram.counts, "errors: decoded - weight")
    return _document("ErrorSummary", rows, picture)


def _document(title: str, rows: Iterable[tuple[str, str]], picture: str) -> str:
    """A title, a table of two columns, and a picture that is already HTML."""
    cell = '<td style="text-align:left;padding:1px 12px 1px 0">'
    table = "".join(f"<tr>{cell}{escape(name)}</td>{cell}{escape(value)}</td></tr>" for name, value in rows)
    return f"<div><strong>{escape(title)}</strong><table>{table}</table>{picture}</div>"
