"""Banks of experts: transformers holds them as packed parameters that one module runs; here expert by expert."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from prismaquant.errors import ModelError
from prismaquant.streaming.observation import Traffic
from prismaquant.streaming.products import Product

if TYPE_CHECKING:
    from prismaquant.model import Linear, Unit

__all__ = ["Bank", "find_bank", "packed_parameters", "watch_banks"]


@dataclass(frozen=True, slots=True)
class Bank:
    """A unit of experts, the module that runs them, and how their weights are multiplied."""

    unit: Unit
    module: Any  # transformers gives these classes no common type
    product: Product = torch.nn.functional.linear

    def run(
        self,
        hidden: torch.Tensor,
        chosen: torch.Tensor,
        weights: torch.Tensor,
        traffic: dict[str, Traffic],
        rounded: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
        *,
        show_all: bool = False,
    ) -> torch.Tensor:
        """The forward of the module, as plain products of each expert's weights with the tokens routed to it.

        Parameters
        ----------
        hidden
            ``[tokens, columns]``.
        chosen, weights
            ``[tokens, k]``: the experts of each token, and how much they count.
        traffic
            Takes what passes each Linear, also of an expert without tokens.
        rounded
            What is done to the inputs of all Linears.
        show_all
            Whether ``traffic`` also takes the inputs that each expert would have if all tokens were routed to it.
        """
        everything = hidden.detach() if show_all else None
        output = torch.zeros_like(hidden)
        for expert in range(self.unit.experts):
            gate, up, down = self.unit.linears[3 * expert : 3 * expert + 3]
            positions, place = torch.where(chosen == expert)
            x = rounded(hidden[positions])
            of_gate, of_up = self.module.gate_up_proj[expert].split([gate.rows, up.rows])
            of_down = self.module.down_proj[expert]
            made = self.product(x, of_gate), self.product(x, of_up)
            inner = rounded(self.module._apply_gate(torch.cat(made, dim=-1)))
            last = self.product(inner, of_down)
            output = output.index_add(0, positions, last * weights[positions, place, None])
            all_inner = None
            if everything is not None:
                with torch.no_grad():
                    all_made = self.product(everything, of_gate), self.product(everything, of_up)
                    all_inner = self.module._apply_gate(torch.cat(all_made, dim=-1))
            traffic[gate.name] = Traffic(x, made[0], of_gate, positions, everything)
            traffic[up.name] = Traffic(x, made[1], of_up, positions, everything)
            traffic[down.name] = Traffic(inner, last, of_down, positions, all_inner)
        return output


def packed_parameters(unit: Unit) -> dict[str, list[Linear]]:
    """Name of each parameter of the module that runs the bank -> the Linears whose rows it holds, in order."""
    gates, ups, downs = (unit.linears[number::3] for number in range(3))
    return {
        f"{unit.module}.gate_up_proj": [linear for pair in zip(gates, ups, strict=True) for linear in pair],
        f"{unit.module}.down_proj": list(downs),
    }


def find_bank(module: Any, unit: Unit, product: Product = torch.nn.functional.linear) -> Bank:
    """The bank ``unit``, which ``module`` runs, with its weights multiplied by ``product``.

    Raises
    ------
    ModelError
        It computes something else than gate, up and down without biases.
    """
    has = {name: getattr(module, name, None) for name in ("has_gate", "is_concatenated", "has_bias", "is_transposed")}
    wanted = {"has_gate": True, "is_concatenated": True, "has_bias": False, "is_transposed": False}
    if has != wanted or getattr(module, "has_post_expert_norm", False):
        raise ModelError(
            f"{type(module).__name__} is no bank of experts of a known kind",
            where=unit.name,
            hint="known are experts of gate, up and down, without biases",
        )
    return Bank(unit, module, product)


@contextmanager
def watch_banks(banks: Sequence[Bank], *, show_all: bool = False) -> Iterator[dict[str, Traffic]]:
    """Inside, ``banks`` run expert by expert, and what passes each Linear is entered under its name.

    Parameters
    ----------
    show_all
        As in `Bank.run`.

    Raises
    ------
    ModelError
        If a bank is called a second time.
    """
    traffic: dict[str, Traffic] = {}

    def instead(bank: Bank) -> Any:
        def forward(hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            if bank.unit.linears[0].name in traffic:
                raise ModelError("is called twice in one run of its layer", where=bank.unit.name)
            return bank.run(hidden, chosen, weights, traffic, show_all=show_all)

        return forward

    for bank in banks:
        bank.module.forward = instead(bank)
    try:
        yield traffic
    finally:
        for bank in banks:
            del bank.module.forward
