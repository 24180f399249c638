"""`walk`: the inputs and output gradients of every Linear, one layer at a time, from a model that is never whole.

Two sweeps. Forward, first layer to last: the hidden states that enter each layer are kept. Then logits and residuals
(`residual`), and backward, last layer to first: each layer is run again from its kept input, this time with gradients.
A layer's weights are read when its turn comes and dropped after it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from prismaquant.errors import ArgumentError, DataError, ModelError, NumericError
from prismaquant.progress import Event, Progress, silent
from prismaquant.streaming import calls
from prismaquant.streaming.observation import Observation, watch
from prismaquant.streaming.residual import top_gradients
from prismaquant.streaming.skeleton import Skeleton
from prismaquant.streaming.tokens import check_ids

if TYPE_CHECKING:
    import numpy.typing as npt

    from prismaquant.model import Model

__all__ = ["Visit", "walk"]


@dataclass(frozen=True, slots=True)
class Visit:
    """One layer run on one batch of windows.

    Attributes
    ----------
    layer, batch
        Their indices.
    linears
        Name of each Linear of the layer's units -> what it saw; ``tokens = windows of the batch * seq_len``.
    """

    layer: int
    batch: int
    linears: dict[str, Observation]

    def __repr__(self) -> str:
        return f"Visit(layer {self.layer}, batch {self.batch}, {len(self.linears)} linears)"


def walk(
    model: Model,
    tokens: npt.NDArray[np.int64],
    probes: int = 1,
    *,
    seed: int = 0,
    batch_windows: int = 8,
    progress: Progress = silent,
) -> Generator[Visit, None, None]:
    """Visit the layers of ``model`` last to first, all batches of one before the next.

    Parameters
    ----------
    tokens
        Integer ids ``[windows, seq_len]``. Every window is a sequence of its own.
    probes
        Sampled residuals per window.
    seed
        Fixes the residuals, together with the window's index and the probe's; not the batch.
    batch_windows
        Windows per run of a layer: memory against speed. Results differ by float rounding only.

    Raises
    ------
    ModelError
        The model cannot be built or cannot be walked layer by layer; names the layer.
    DataError
        ``tokens`` is empty or has ids that the model does not have.
    NumericError
        NaN or infinity in a weight (names the tensor) or in the activations or gradients (names layer and window).

    Notes
    -----
    Memory: one float32 ``[windows, seq_len, hidden]`` per layer and per probe, one layer, and what that layer keeps for
    its gradients on ``batch_windows`` windows. A consumer may stop early; closing the iterator frees everything.
    """
    if probes < 1 or batch_windows < 1 or seed < 0:
        raise ArgumentError(
            f"probes {probes} and batch_windows {batch_windows} must be positive, seed {seed} not negative"
        )
    if tokens.ndim != 2 or tokens.size == 0:
        raise DataError(f"tokens have shape {list(tokens.shape)}, expected [windows, seq_len]")
    check_ids(tokens, model, "tokens")
    return _Walk(model, tokens, probes, seed, batch_windows, progress).visits()


class _Walk:
    def __init__(
        self,
        model: Model,
        tokens: npt.NDArray[np.int64],
        probes: int,
        seed: int,
        batch_windows: int,
        progress: Progress,
    ) -> None:
        self._skeleton = Skeleton(model)
        self._ids = torch.from_numpy(np.array(tokens, dtype=np.int64))
        self._probes, self._seed, self._progress = probes, seed, progress
        self._batches = [
            slice(start, min(start + batch_windows, len(tokens))) for start in range(0, len(tokens), batch_windows)
        ]
        self._calls: dict[int, list[calls.Call]] = {}  # windows of a batch -> call of each layer
        self._linears = _find_linears(model, self._skeleton)

    def visits(self) -> Generator[Visit, None, None]:
        skeleton = self._skeleton
        with skeleton.filled(skeleton.rest):
            hidden = self._embed()
            inputs = []
            for layer in range(len(skeleton.layers)):
                inputs.append(hidden)
                hidden = self._forward(layer, hidden)
            gradients = self._top(hidden)
        del hidden
        for layer in reversed(range(len(skeleton.layers))):
            with skeleton.filled(skeleton.layer_tensors[layer]):
                hidden = inputs.pop()
                for batch in range(len(self._batches)):
                    yield Visit(layer, batch, self._backward(layer, batch, hidden, gradients))

    def _embed(self) -> torch.Tensor:
        """Input of the first layer, float32 ``[windows, seq_len, hidden]``; learns the calls on the way."""
        parts = []
        with self._skeleton.filled(self._skeleton.embedding):
            for batch in self._batches:
                hidden, made = calls.embed(self._skeleton, self._ids[batch])
                known = self._calls.setdefault(len(hidden), made)
                for layer, (one, other) in enumerate(zip(known, made, strict=True)):
                    if not calls.is_same((one.args, one.kwargs), (other.args, other.kwargs)):
                        raise ModelError(
                            "its arguments depend on the tokens, not only on their number",
                            where=self._skeleton.names[layer],
                            hint="such models cannot be walked layer by layer",
                        )
                self._check(hidden, "embedding", batch)
                parts.append(hidden)
        return torch.cat(parts)

    @torch.no_grad()
    def _forward(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Output of ``layer`` for all windows."""
        output = torch.empty_like(hidden)
        with self._skeleton.filled(self._skeleton.layer_tensors[layer]):
            for index, batch in enumerate(self._batches):
                part = hidden[batch]
                output[batch] = calls.run(self._skeleton, layer, part, self._calls[len(part)][layer])
                self._check(output[batch], f"layer {layer}", batch)
                self._report("forward", layer, layer * len(self._batches) + index + 1)
        return output

    def _top(self, hidden: torch.Tensor) -> torch.Tensor:
        """Gradients behind the last layer, float32 ``[probes, windows, seq_len, hidden]``."""
        gradients = hidden.new_empty((self._probes, *hidden.shape))
        with self._skeleton.filled(self._skeleton.head):
            for window in range(len(hidden)):
                gradients[:, window] = top_gradients(self._skeleton, hidden[window], window, self._probes, self._seed)
                self._progress(Event("head", window + 1, len(hidden)))
        return gradients

    def _backward(
        self, layer: int, batch: int, hidden: torch.Tensor, gradients: torch.Tensor
    ) -> dict[str, Observation]:
        """What the Linears of ``layer`` see; replaces ``gradients`` of the batch's windows by those in front of it."""
        windows = self._batches[batch]
        start = hidden[windows].detach().requires_grad_()
        linears = self._linears[layer]
        with torch.enable_grad(), watch(linears) as traffic:
            output = calls.run(self._skeleton, layer, start, self._calls[len(start)][layer])
        for name in linears:
            if name not in traffic or traffic[name].input.shape[:-1] != start.shape[:-1]:
                raise ModelError("does not see every token of its layer once", where=name)
        sources = [*(traffic[name].output for name in linears), start]
        rows = [output.new_empty((self._probes, start.shape[0] * start.shape[1], part.shape[-1])) for part in sources]
        for probe in range(self._probes):
            parts = torch.autograd.grad(
                output, sources, gradients[probe, windows], retain_graph=probe + 1 < self._probes
            )
            for row, part in zip(rows, parts, strict=True):
                row[probe] = part.flatten(0, 1)
        gradients[:, windows] = rows.pop().view(self._probes, *start.shape)
        self._check(gradients[:, windows].abs().amax(dim=0), f"gradients of layer {layer}", windows)
        flat = {id(seen.input): seen.input.detach().flatten(0, 1) for seen in traffic.values()}
        done = (len(self._skeleton.layers) - 1 - layer) * len(self._batches) + batch + 1
        self._report("backward", layer, done)
        return {name: Observation(flat[id(traffic[name].input)], row) for name, row in zip(linears, rows, strict=True)}

    def _report(self, stage: str, layer: int, done: int) -> None:
        self._progress(Event(stage, done, len(self._skeleton.layers) * len(self._batches), f"layer {layer}"))

    @staticmethod
    def _check(values: torch.Tensor, what: str, windows: slice) -> None:
        """Refuse NaN and infinity in ``values`` of shape ``[windows, seq_len, hidden]``."""
        finite = values.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            window = windows.start + int(finite.logical_not().nonzero()[0])
            raise NumericError(
                "activations are NaN or infinite",
                where=f"{what}, window {window}",
                hint="look for damaged weights in this layer or before it",
            )


def _find_linears(model: Model, skeleton: Skeleton) -> list[dict[str, nn.Module]]:
    """Per layer: name -> module of each Linear of the model's units."""
    found: list[dict[str, nn.Module]] = [{} for _ in skeleton.layers]
    for unit in model.units:
        for linear in unit.linears:
            module = skeleton.causal.get_submodule(linear.name)
            if not isinstance(module, nn.Linear):
                raise ModelError(f"is a {type(module).__name__}, not a Linear", where=linear.name)
            found[unit.layer][linear.name] = module
    return found
