"""One filled layer, run with other weights in its Linears and with quantized inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prismaquant.calibration.inputs import quantize_input

__all__ = ["ServedInput", "input_of", "inputs_of", "served_inputs", "with_weights"]


@dataclass(frozen=True, slots=True)
class ServedInput:
    """How an engine quantizes the input of a Linear; the fields are parameters of `quantize_input`."""

    activations: str
    input_global_scale: float | None


@contextmanager
def with_weights(linears: Mapping[str, nn.Linear], weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside, the Linears that are in ``weights`` have these, float32 ``[rows, columns]``."""
    with ExitStack() as stack:
        for name, weight in weights.items():
            table: dict[str, Any] = linears[name]._parameters
            stack.callback(table.__setitem__, "weight", table["weight"])
            table["weight"] = nn.Parameter(weight, requires_grad=False)
        yield


@contextmanager
def served_inputs(
    linears: Mapping[str, nn.Linear], served: Mapping[str, ServedInput], threads: int | None
) -> Iterator[None]:
    """Inside, the inputs of the Linears that are in ``served`` are rounded as engines round them."""
    last: list[Any] = [None, None, None]  # input, how, rounded: fused siblings get one input, one after the other

    def round_input(how: ServedInput) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], torch.Tensor]:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> torch.Tensor:
            x = args[0]
            if last[0] is not x or last[1] != how:
                flat = quantize_input(x.flatten(0, -2), how.activations, how.input_global_scale, threads)
                last[:] = x, how, flat.view(x.shape)
            rounded: torch.Tensor = last[2]
            return rounded

        return hook

    with ExitStack() as stack:
        for name, how in served.items():
            stack.callback(linears[name].register_forward_pre_hook(round_input(how)).remove)
        yield


class _Reached(Exception):
    """Ends a run of the layer: the rest of it is not wanted."""


def input_of(linear: nn.Linear, run: Callable[[], object]) -> torch.Tensor:
    """Input of ``linear``, ``[tokens, columns]``, in ``run``, which is stopped there."""
    seen: list[torch.Tensor] = []

    def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(args[0])
        raise _Reached

    handle = linear.register_forward_pre_hook(hook)
    try:
        run()
    except _Reached:
        pass
    finally:
        handle.remove()
    return seen[0].flatten(0, -2)


def inputs_of(
    linears: Mapping[str, nn.Linear], run: Callable[[], torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Result of ``run``, and the inputs of ``linears`` in it, ``[tokens, columns]`` each."""
    seen: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def keep(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen[name] = args[0].flatten(0, -2)

        return keep

    with ExitStack() as stack:
        for name, linear in linears.items():
            stack.callback(linear.register_forward_pre_hook(hook(name)).remove)
        return run(), seen
