"""What the Linears of one module see when it is run: their inputs, and the gradients that reach their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn

from prismaquant.errors import ModelError
from prismaquant.streaming.experts import Bank, watch_banks
from prismaquant.streaming.observation import Observation, Traffic, watch

__all__ = ["observe_layer", "observe_tower"]


def observe_layer(
    linears: Mapping[str, nn.Linear],
    banks: Sequence[Bank],
    start: torch.Tensor,
    run: Callable[[], torch.Tensor],
    gradients_of: Callable[[torch.Tensor], torch.Tensor],
    *,
    show_all: bool = False,
) -> tuple[dict[str, Observation], torch.Tensor]:
    """What ``linears`` and ``banks`` see, and the gradients in ``start``: float32 ``[probes, *start.shape]``.

    Parameters
    ----------
    start
        float32 ``[windows, seq_len, hidden]``, of which gradients are wanted.
    run
        Output of the layer for ``start``.
    gradients_of
        That output -> the gradients in it, ``[probes, *output.shape]``.
    show_all
        As in `watch_banks`.

    Raises
    ------
    ModelError
        A Linear does not see every token once; names it.
    """
    with torch.enable_grad(), watch(linears) as passed, watch_banks(banks, show_all=show_all) as routed:
        output = run()
    for name in linears:
        if name not in passed or passed[name].input[..., 0].numel() != start[..., 0].numel():
            raise ModelError("does not see every token of its layer once", where=name)
    for bank in banks:
        if bank.unit.linears[0].name not in routed:
            raise ModelError("is not called by its layer", where=bank.unit.name)
    traffic = passed | routed
    sources = [*(each.output for each in traffic.values()), start]
    *rows, before = _differentiate([output], [gradients_of(output)], sources)
    return _observations(traffic, rows), before.view(-1, *start.shape)


def observe_tower(
    linears: Mapping[str, nn.Linear],
    run: Callable[[], Mapping[int, torch.Tensor]],
    gradients: Sequence[torch.Tensor],
) -> Iterator[dict[str, Observation]]:
    """For each probe in turn, what those of ``linears`` see that anything in the model depends on.

    A tower is observed whole: the gradients of all probes at once would take more memory than all else.

    Parameters
    ----------
    run
        What the tower gives to each layer that it gives to.
    gradients
        In each of these, ``[probes, windows, seq_len, hidden]``.
    """
    with torch.enable_grad(), watch(linears) as traffic:
        outputs = list(run().values())
    sources = [each.output for each in traffic.values()]
    probes = len(gradients[0])
    for probe in range(probes):
        of_probe = [each[probe : probe + 1] for each in gradients]
        rows = _differentiate(outputs, of_probe, sources, again=probe + 1 < probes) if sources else []
        reached = [(name, row) for name, row in zip(traffic, rows, strict=True) if row.any()]
        yield _observations({name: traffic[name] for name, _ in reached}, [row for _, row in reached])


def _differentiate(
    outputs: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    sources: Sequence[torch.Tensor],
    *,
    again: bool = False,
) -> list[torch.Tensor]:
    """Gradients in each of ``sources``, float32 ``[probes, tokens, width]``; zero where no output depends on it.

    Parameters
    ----------
    again
        Whether there will be other gradients in the same outputs.
    """
    probes = len(gradients[0])
    rows = [source.new_zeros(probes, source[..., 0].numel(), source.shape[-1]) for source in sources]
    for probe in range(probes):
        keep = again or probe + 1 < probes
        parts = torch.autograd.grad(
            outputs, sources, [each[probe] for each in gradients], retain_graph=keep, allow_unused=True
        )
        for row, part in zip(rows, parts, strict=True):
            if part is not None:
                row[probe] = _flat(part)
    return rows


def _observations(traffic: Mapping[str, Traffic], rows: Sequence[torch.Tensor]) -> dict[str, Observation]:
    flat = {id(each.input): _flat(each.input.detach()) for each in traffic.values()}
    return {
        name: Observation(flat[id(each.input)], row, each.weight.detach(), each.positions, each.all_inputs)
        for (name, each), row in zip(traffic.items(), rows, strict=True)
    }


def _flat(values: torch.Tensor) -> torch.Tensor:
    """``[tokens, ...]``."""
    return values.reshape(-1, values.shape[-1])
