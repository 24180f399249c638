"""Tensor parallelism: whether a Linear can be divided among devices as engines do it."""

from __future__ import annotations

__all__ = ["why_not_divided"]

#: Linears whose inputs are divided, because their inputs are the divided outputs of others (vLLM's RowParallelLinear).
_DIVIDED_INPUTS = ("o_proj", "down_proj", "out_proj")

#: Linears of which a device has a whole head where there are fewer heads than devices.
_REPEATED = ("k_proj", "v_proj")


def why_not_divided(
    name: str, shape: tuple[int, int], devices: int, *, blocks: tuple[int, int], kv_heads: int
) -> str | None:
    """Why the Linear ``name`` of ``shape`` ``[rows, columns]`` cannot be divided among ``devices``; ``None`` if it can.

    Engines divide the outputs of a Linear, or, where these were divided before it, the inputs; every part must hold
    whole blocks of elements with one scale.

    Parameters
    ----------
    blocks
        Rows and columns that must stay together.
    kv_heads
        Heads of keys and values; 0: not known.
    """
    if devices == 1:
        return None
    last = name.rpartition(".")[2]
    axis = 1 if last in _DIVIDED_INPUTS else 0
    size, block, what = shape[axis], blocks[axis], ("rows", "columns")[axis]
    if last in _REPEATED and 0 < kv_heads < devices:
        devices = kv_heads
    if size % devices:
        return f"its {size} {what} cannot be divided among {devices} devices"
    if size // devices % block:
        return f"its {what} on each of {devices} devices, {size // devices}, are not a multiple of {block}"
    return None
