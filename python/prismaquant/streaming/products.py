"""Products of Linears in bfloat16, where the processor has instructions for it; sums and all else stay in float32.

Their inputs are rounded to 8 bits, their weights are of such numbers anyway: an error of 0.2 % that no sum over tokens
notices, for less than half of the time on AVX-512.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

if TYPE_CHECKING:
    from prismaquant.model import Linear

__all__ = ["Product", "has_bf16", "multiply_by", "product_for"]

#: ``x [..., columns]``, weight ``[rows, columns]`` -> ``[..., rows]``, as `torch.nn.functional.linear`.
Product: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: Elements of a weight from which on the time is noticed.
_LARGE = 1 << 20

#: What torch calls the instructions.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def has_bf16(device: torch.device) -> bool:
    """Whether ``device`` is a processor that multiplies bfloat16 itself, as far as torch can say; an old one cannot."""
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and any(capabilities.get(name) for name in _INSTRUCTIONS)


def product_for(linear: Linear, device: torch.device) -> Product:
    """How the weight of ``linear`` is multiplied on ``device``: in bfloat16 if it is large, and stored so."""
    is_large = linear.rows * linear.columns >= _LARGE
    return _in_bf16 if is_large and linear.weight.dtype == "BF16" and has_bf16(device) else torch.nn.functional.linear


def multiply_by(product: Product, module: nn.Linear) -> None:
    """Have ``module`` multiply by ``product``."""
    if product is torch.nn.functional.linear:
        return  # it does, and adds the bias on the way

    def forward(x: torch.Tensor) -> torch.Tensor:
        y = product(x, module.weight)
        return y if module.bias is None else y + module.bias

    vars(module)["forward"] = forward  # an instance attribute hides the method


def _in_bf16(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = _InBf16.apply(x, weight)  # type: ignore[no-untyped-call]
    return product


class _InBf16(torch.autograd.Function):
    """With a gradient in ``x`` alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        rounded = weight.to(torch.bfloat16)
        ctx.save_for_backward(rounded)
        return torch.nn.functional.linear(x.to(torch.bfloat16), rounded).float()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (rounded,) = ctx.saved_tensors
        return (gradient.to(torch.bfloat16) @ rounded).float(), None
