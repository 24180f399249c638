"""
Compiled core of prismaquant. Not a public interface: use the functions of the package.
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import prismaquant.types
import typing
import typing_extensions

__all__: list[str] = [
    "TensorView",
    "active_isa",
    "allocate",
    "allocate_constrained",
    "available_isas",
    "decode",
    "element_values",
    "encode",
    "encoding_error",
    "error",
    "format_info",
    "frontier",
    "list_formats",
    "list_presets",
    "list_scale_rules",
    "list_solvers",
    "roundtrip",
    "shared_global_scale",
    "solve",
    "squared_error",
    "storage",
    "stored_bytes",
    "subtract",
    "sweep",
    "version",
    "why_not",
]

class TensorView:
    """
    A borrowed tensor; functions take it in place of the tensor itself.
    """
    def __init__(self, tensor: prismaquant.types.Tensor, name: str) -> None:
        """
        Borrows a tensor; `name` starts the messages about it.
        """
    def at(self, index: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> TensorView:
        """
        The part at `index`, one number per leading axis.
        """
    def with_last(self, axis: typing.SupportsInt | typing.SupportsIndex) -> TensorView:
        """
        The same tensor with one axis (not negative) as the last one; the others keep their order.
        """
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

def active_isa() -> str:
    """
    The instruction set in use: the widest of this processor, or the one that PRISMAQUANT_ISA names.
    """

def allocate(
    bytes: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
    losses: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]],
    budget: typing.SupportsInt | typing.SupportsIndex,
) -> dict[str, typing.Any]:
    """
    Exact multiple-choice knapsack: one candidate per item, least total loss within the byte budget.
    """

def allocate_constrained(
    bytes: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
    losses: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]],
    budget: typing.SupportsInt | typing.SupportsIndex,
    constraints: collections.abc.Sequence[
        tuple[
            collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
) -> dict[str, typing.Any]:
    """
    The same under further limits, pairs (uses, limit), with a proven lower bound.
    """

def available_isas() -> list[str]:
    """
    Instruction sets that can be used here, narrowest first.
    """

def decode(
    codes: numpy.ndarray,
    scales: numpy.ndarray | None,
    format: str,
    global_scale: typing.SupportsFloat | typing.SupportsIndex,
    out: prismaquant.types.Tensor,
    threads: typing.SupportsInt | typing.SupportsIndex,
    extra: numpy.ndarray | None = None,
) -> None:
    """
    Decodes into `out`, a writable tensor of the matrix's shape.
    """

def element_values(format: str) -> numpy.typing.NDArray[numpy.float32]:
    """
    What each element code stands for under scale 1, in the order of the codes.
    """

def encode(
    weight: prismaquant.types.Tensor,
    format: str,
    scale_rule: str,
    global_scale: typing.SupportsFloat | typing.SupportsIndex | None,
    threads: typing.SupportsInt | typing.SupportsIndex,
    codes: numpy.ndarray,
    scales: numpy.ndarray | None,
    extra: numpy.ndarray | None,
    importance: numpy.ndarray | None = None,
    saturate: bool = False,
) -> float | None:
    """
    Encodes into codes, scales and extra (see `storage`); returns the global scale used, None if there is none.
    """

def encoding_error(
    weight: prismaquant.types.Tensor,
    format: str,
    scale_rule: str,
    global_scale: typing.SupportsFloat | typing.SupportsIndex | None,
    importance: numpy.ndarray | None,
    saturate: bool,
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> dict[str, typing.Any]:
    """
    The error that encoding a matrix would make.
    """

def error(
    weight: prismaquant.types.Tensor,
    codes: numpy.ndarray,
    scales: numpy.ndarray | None,
    format: str,
    global_scale: typing.SupportsFloat | typing.SupportsIndex,
    threads: typing.SupportsInt | typing.SupportsIndex,
    extra: numpy.ndarray | None = None,
) -> dict[str, typing.Any]:
    """
    The error of a quantized matrix.
    """

def format_info(name: str) -> dict[str, typing.Any]:
    """
    Facts of one format.
    """

def frontier(
    bytes: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
    losses: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]],
) -> list[tuple[int, float]]:
    """
    Vertices (bytes, loss) of the lower convex hull over all choices, in increasing bytes.
    """

def list_formats() -> list[str]:
    """
    Names of all formats, in the order of the format list.
    """

def list_presets() -> list[dict[str, typing.Any]]:
    """
    The presets, cheapest first.
    """

def list_scale_rules(format: str) -> list[str]:
    """
    Names of the scale rules that a format takes.
    """

def list_solvers() -> list[tuple[str, dict[str, typing.Any]]]:
    """
    Names of all solvers, each with its options as they are by default.
    """

def roundtrip(
    weight: prismaquant.types.Tensor,
    format: str,
    scale_rule: str,
    global_scale: typing.SupportsFloat | typing.SupportsIndex | None,
    importance: numpy.ndarray | None,
    saturate: bool,
    out: prismaquant.types.Tensor,
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Decoded values of the encoded matrix, into `out`, a writable tensor of the matrix's shape and dtype.
    """

def shared_global_scale(
    weights: collections.abc.Sequence[prismaquant.types.Tensor],
    format: str,
    stages: str | collections.abc.Sequence[tuple[str, dict[str, typing.Any]]],
) -> float | None:
    """
    The global scale (a divisor) of fused siblings; None where the format has none.
    """

def solve(
    weight: prismaquant.types.Tensor,
    format: str,
    stages: str | collections.abc.Sequence[tuple[str, dict[str, typing.Any]]],
    *,
    global_scale: typing.SupportsFloat | typing.SupportsIndex | None,
    gram: prismaquant.types.Tensor | None,
    tokens: typing.SupportsInt | typing.SupportsIndex,
    output_gram: prismaquant.types.Tensor | None,
    output_tokens: typing.SupportsInt | typing.SupportsIndex,
    cross_gram: prismaquant.types.Tensor | None,
    pooled_gram: prismaquant.types.Tensor | None,
    pooled_tokens: typing.SupportsInt | typing.SupportsIndex,
    importance: prismaquant.types.Tensor | None,
    damping: typing.SupportsFloat | typing.SupportsIndex | None,
    output_damping: typing.SupportsFloat | typing.SupportsIndex | None,
    memory_limit: typing.SupportsInt | typing.SupportsIndex,
    linalg: collections.abc.Mapping[str, typing_extensions.CapsuleType],
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> dict[str, typing.Any]:
    """
    Fields of a Quantized and of its report. Statistics are float32; counts and limits of 0 stand for none.
    """

def squared_error(
    weight: prismaquant.types.Tensor,
    codes: numpy.ndarray,
    scales: numpy.ndarray | None,
    format: str,
    global_scale: typing.SupportsFloat | typing.SupportsIndex,
    threads: typing.SupportsInt | typing.SupportsIndex,
    extra: numpy.ndarray | None = None,
) -> float:
    """
    Sum of (decoded - weight)^2.
    """

def storage(
    format: str, rows: typing.SupportsInt | typing.SupportsIndex, columns: typing.SupportsInt | typing.SupportsIndex
) -> dict[str, typing.Any]:
    """
    Dtype and shape of codes, scales and extra words of a matrix; those that the format has.
    """

def stored_bytes(
    format: str, rows: typing.SupportsInt | typing.SupportsIndex, columns: typing.SupportsInt | typing.SupportsIndex
) -> int:
    """
    Bytes of codes, block scales, extra words and global scale of a matrix.
    """

def subtract(weight: prismaquant.types.Tensor, values: numpy.ndarray) -> None:
    """
    values -= weight, in float32.
    """

def sweep(
    bytes: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
    losses: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]],
    budgets: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
) -> list[tuple[int, float, float, float]]:
    """
    (bytes, loss, lower bound, tolerance) of the certified optimum for each of the increasing budgets.
    """

def version() -> str:
    """
    Version of the C++ headers.
    """

def why_not(format: str, columns: typing.SupportsInt | typing.SupportsIndex) -> str | None:
    """
    Why a format cannot store rows of that many columns; None if it can.
    """
