"""
Compiled core of prismaquant. Not a public interface: use the functions of the package.
"""

from __future__ import annotations
import collections.abc
import numpy
import prismaquant.types
import typing

__all__: list[str] = [
    "active_isa",
    "allocate",
    "available_isas",
    "compiled_isa",
    "decode",
    "encode",
    "format_info",
    "list_formats",
    "list_solvers",
    "processor_isas",
    "shared_global_scale",
    "solve",
    "squared_error",
    "stored_bytes",
    "use_isa",
    "version",
    "why_not",
]

def active_isa() -> str:
    """
    Instruction set of the kernels in use; PRISMAQUANT_ISA forces one.
    """

def allocate(
    bytes: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
    losses: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]],
    budget: typing.SupportsInt | typing.SupportsIndex,
) -> dict[str, typing.Any]:
    """
    Exact multiple-choice knapsack: one candidate per item, least total loss within the byte budget.
    """

def available_isas() -> list[str]:
    """
    Kernels that this processor can run, narrowest first: what PRISMAQUANT_ISA accepts.
    """

def compiled_isa() -> str:
    """
    Instruction set of this build.
    """

def decode(
    codes: numpy.ndarray,
    scales: numpy.ndarray | None,
    format: str,
    global_scale: typing.SupportsFloat | typing.SupportsIndex,
    out: prismaquant.types.Tensor,
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Decodes into `out`, a writable float32 or bfloat16 tensor of the matrix's shape.
    """

def encode(
    weight: prismaquant.types.Tensor,
    format: str,
    scale_rule: str,
    global_scale: typing.SupportsFloat | typing.SupportsIndex,
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> tuple[numpy.ndarray, typing.Any]:
    """
    Codes and block scales (None where the format has none) of a matrix. threads 0: all.
    """

def format_info(name: str) -> dict[str, typing.Any]:
    """
    Facts of one format.
    """

def list_formats() -> list[str]:
    """
    Names of all formats, in the order of the format list.
    """

def list_solvers() -> list[str]:
    """
    Names of all solvers.
    """

def processor_isas() -> list[str]:
    """
    Instruction sets of this processor.
    """

def shared_global_scale(
    weights: collections.abc.Sequence[prismaquant.types.Tensor], format: str, solver: str
) -> float | None:
    """
    The global scale (a divisor) of fused siblings; None where the format has none.
    """

def solve(
    weight: prismaquant.types.Tensor,
    format: str,
    solver: str,
    global_scale: typing.SupportsFloat | typing.SupportsIndex | None,
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> dict[str, typing.Any]:
    """
    Codes, scales, global scale and squared error of one matrix.
    """

def squared_error(
    weight: prismaquant.types.Tensor,
    codes: numpy.ndarray,
    scales: numpy.ndarray | None,
    format: str,
    global_scale: typing.SupportsFloat | typing.SupportsIndex,
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> float:
    """
    Sum of (decoded - weight)^2.
    """

def stored_bytes(
    format: str, rows: typing.SupportsInt | typing.SupportsIndex, columns: typing.SupportsInt | typing.SupportsIndex
) -> int:
    """
    Bytes of codes, block scales and global scale of a matrix.
    """

def use_isa(name: str) -> None:
    """
    Puts other kernels to use. Results never depend on it.
    """

def version() -> str:
    """
    Version of the C++ headers.
    """

def why_not(format: str, columns: typing.SupportsInt | typing.SupportsIndex) -> str | None:
    """
    Why a format cannot store rows of that many columns; None if it can.
    """
