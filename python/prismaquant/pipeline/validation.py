"""Validation: a plan beside others of no more bytes, each measured, because prices are estimates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prismaquant.formats import BF16, get_scheme
from prismaquant.quantity import parse_bytes

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.files.polish import Polish
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.planning import Request

__all__ = ["Validated", "validated"]


@dataclass(frozen=True, slots=True)
class Validated:
    """A plan that was built and measured.

    Attributes
    ----------
    name
        ``"plan"``, ``"frontier"`` (the best plan of a smaller budget), or the scheme of a uniform plan.
    plan
        With what it predicts.
    kl
        KL divergence to the source on held-out windows, nats per token; polished where that is better.
    standard_error
        Of it; ``None`` for one window.
    chosen
        Whether it is the one that is written: the least KL, of equals the fewest bytes.
    """

    name: str
    plan: Plan
    kl: float
    standard_error: float | None
    chosen: bool = False


def validated(
    model: Model,
    sensitivity: Sensitivity,
    request: Request,
    decided: Plan,
    points: int,
    measure: Callable[[Plan], Polish],
    *,
    polish: bool,
) -> tuple[Validated, ...]:
    """Measure ``decided``, ``points - 1`` plans of smaller budgets and the uniform ones that fit, in increasing bytes.

    Parameters
    ----------
    measure
        Builds and polishes a plan, and measures both.
    polish
        Whether the polished ones are compared.
    """
    found: dict[str, Validated] = {}
    for name, plan in _candidates(model, sensitivity, request, decided, points):
        if plan.fingerprint in found:
            continue
        report = measure(plan)
        is_polished = polish and report.accepted
        found[plan.fingerprint] = Validated(
            name,
            plan,
            report.kl_after if is_polished else report.kl_before,
            report.standard_error_after if is_polished else report.standard_error_before,
        )
    best = min(found.values(), key=lambda each: (each.kl, each.plan.bytes))
    ordered = sorted(found.values(), key=lambda each: each.plan.bytes)
    return tuple(replace(each, chosen=each is best) for each in ordered)


def _candidates(
    model: Model, sensitivity: Sensitivity, request: Request, decided: Plan, points: int
) -> Iterator[tuple[str, Plan]]:
    from prismaquant.planning import frontier, plan

    yield "plan", decided
    for scheme in decided.menu:
        uniform = replace(
            request, bpw=None, size=None, fit=None, max_loss=None, max_read=None, a16_share=None, schemes=(scheme,)
        )
        made = plan(model, sensitivity, replace(uniform, activations="auto"))
        if scheme != BF16 and _keeps(scheme, made, decided, request):
            yield scheme, made
    smallest = frontier(model, sensitivity, request, points=2, resamples=0).vertices[0].bytes
    for number in range(points - 1):
        size = smallest + (decided.bytes - smallest) * number // (points - 1)
        passthrough = sum(model.tensors[name].nbytes for name in model.passthrough)
        yield "frontier", plan(model, sensitivity, replace(request, bpw=None, max_loss=None, size=size + passthrough))


def _keeps(scheme: str, uniform: Plan, decided: Plan, request: Request) -> bool:
    """Whether a uniform plan is within all that ``decided`` was limited by."""
    footprint = uniform.footprint
    assert footprint is not None
    assert decided.footprint is not None
    budget = decided.bytes if decided.budget is None else decided.budget
    fits = decided.footprint.left is None or footprint.resident <= decided.footprint.resident + decided.footprint.left
    reads = request.max_read is None or footprint.read_per_token <= parse_bytes(request.max_read)
    asked = get_scheme(scheme)
    has_own = any(x.activations and x.weight_format == asked.weight_format for x in map(get_scheme, decided.menu))
    shares = decided.a16_limit in (None, 1) or asked.activations is not None or not has_own
    return uniform.bytes <= budget and fits and reads and shares
