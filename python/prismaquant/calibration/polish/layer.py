"""One filled layer, run with other weights in its Linears and with quantized inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prismaquant.calibration.inputs import quantize_input

if TYPE_CHECKING:
    from prismaquant.streaming.experts import Bank
    from prismaquant.streaming.skeleton import Skeleton

__all__ = ["ServedInput", "input_of", "inputs_of", "served_inputs", "with_weights"]


@dataclass(frozen=True, slots=True)
class ServedInput:
    """How an engine quantizes the input of a Linear; the fields are parameters of `quantize_input`."""

    activations: str
    static_scale: float | None


@contextmanager
def with_weights(skeleton: Skeleton, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside, the parameters of ``skeleton`` that are in ``weights`` are these."""
    with ExitStack() as stack:
        for name, weight in weights.items():
            owner, _, leaf = name.rpartition(".")
            table: dict[str, Any] = skeleton.submodule(owner)._parameters
            stack.callback(table.__setitem__, leaf, table[leaf])
            table[leaf] = nn.Parameter(weight, requires_grad=False)
        yield


@contextmanager
def served_inputs(
    linears: Mapping[str, nn.Linear], banks: Iterable[Bank], served: Mapping[str, ServedInput], threads: int | None
) -> Iterator[None]:
    """Inside, the inputs of the units that are in ``served`` (by the name of a Linear) are rounded as engines do it."""
    last: list[Any] = [None, None, None]  # input, how, rounded: fused siblings get one input, one after the other

    def round_input(how: ServedInput) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], torch.Tensor]:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> torch.Tensor:
            x = args[0]
            if last[0] is not x or last[1] != how:
                flat = quantize_input(x.flatten(0, -2), how.activations, how.static_scale, threads)
                last[:] = x, how, flat.view(x.shape)
            rounded: torch.Tensor = last[2]
            return rounded

        return hook

    def run_rounded(bank: Bank, how: ServedInput) -> Callable[..., torch.Tensor]:
        def rounded(x: torch.Tensor) -> torch.Tensor:
            return quantize_input(x, how.activations, how.static_scale, threads) if len(x) else x

        return lambda hidden, chosen, weights: bank.run(hidden, chosen, weights, {}, rounded)

    with ExitStack() as stack:
        for name, linear in linears.items():
            if name in served:
                stack.callback(linear.register_forward_pre_hook(round_input(served[name])).remove)
        for bank in banks:
            how = served.get(bank.unit.linears[0].name)
            if how is not None:
                bank.module.forward = run_rounded(bank, how)
                stack.callback(delattr, bank.module, "forward")
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
