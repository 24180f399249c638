"""`Request`: all that a caller can ask of a plan, and the `Question` that it is for one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError
from prismaquant.formats import DEFAULT_MENU
from prismaquant.planning.budget import Budget, budgets_of
from prismaquant.planning.menu import Menu, menu_of
from prismaquant.planning.serving import Serving, serving_of

if TYPE_CHECKING:
    from prismaquant.model import Model

__all__ = ["Question", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `pipeline.plan` under the same names; they are explained there."""

    bpw: float | None = None
    size: int | str | None = None
    fit: int | str | None = None
    max_loss: float | None = None
    context: int | str | None = None
    kv: str = "auto"
    concurrency: int = 1
    tensor_parallel: int = 1
    reserve: int | str | None = None
    max_read: int | str | None = None
    schemes: Sequence[str] = DEFAULT_MENU
    activations: str = "native"
    a16_share: float | None = None
    target_device: str | None = None
    pins: Sequence[str] = ()
    price: str = "directional"
    preset: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A request to one model, checked.

    Attributes
    ----------
    menu, serving
        What may be chosen, and what it is to be served with.
    budgets
        Of the units, the smallest first.
    """

    request: Request
    menu: Menu
    serving: Serving
    budgets: tuple[Budget, ...]

    @staticmethod
    def of(model: Model, request: Request) -> Question:
        """The question that ``request`` is to ``model``.

        Raises
        ------
        ArgumentError, FormatError
            An argument is wrong, or two contradict each other.
        """
        serving = serving_of(
            model,
            fit=request.fit,
            context=request.context,
            kv=request.kv,
            concurrency=request.concurrency,
            tensor_parallel=request.tensor_parallel,
            reserve=request.reserve,
            target_device=request.target_device,
        )
        device = serving.device
        menu = menu_of(
            model,
            schemes=request.schemes,
            activations=request.activations,
            a16_share=request.a16_share,
            target_device=request.target_device or (device.name if device else None),
            tensor_parallel=request.tensor_parallel,
            pins=request.pins,
        )
        budgets = budgets_of(model, bpw=request.bpw, size=request.size, serving=serving)
        if request.max_loss is not None:
            if not request.max_loss > 0:
                raise ArgumentError(f"max_loss is {request.max_loss}, expected nats per token above 0")
            if budgets or request.fit is not None or request.max_read is not None:
                raise ArgumentError("max_loss and a budget are both given", hint="give one of them")
        return Question(request, menu, serving, budgets)

    @property
    def pins(self) -> tuple[str, ...]:
        """As they were written."""
        pins = self.request.pins
        return (pins,) if isinstance(pins, str) else tuple(pins)

    @property
    def has_budget(self) -> bool:
        """Whether anything limits the choice, so that prices are needed for it."""
        request = self.request
        return any(value is not None for value in (request.fit, request.max_loss, request.max_read)) or bool(
            self.budgets
        )

    @property
    def asked(self) -> str:
        """What limits it, in the words of the caller."""
        request = self.request
        parts = [budget.asked for budget in self.budgets]
        if request.fit is not None and self.serving.tensor_parallel > 1:
            parts.append(f"{self.serving.tensor_parallel} devices of {request.fit}")
        if request.max_read is not None:
            parts.append(f"{request.max_read} read per token")
        if request.max_loss is not None:
            parts.append(f"a loss of {request.max_loss:g}")
        return " and ".join(parts)
