"""`Forward`: the embedding and the layers of a skeleton, run on one batch of windows at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from prismaquant.errors import ArgumentError, DataError, ModelError, NumericError
from prismaquant.streaming import calls
from prismaquant.streaming.packing import check_ids

if TYPE_CHECKING:
    import numpy.typing as npt

    from prismaquant.model import Model
    from prismaquant.streaming.samples import Samples
    from prismaquant.streaming.skeleton import Skeleton

__all__ = ["Batch", "Forward", "Windows", "check_finite", "check_windows"]


#: Token ids by which a window is named.
_SHOWN_IDS = 8


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of tokens that are walked for one purpose; every window is a sequence of its own.

    Attributes
    ----------
    ids
        int64 ``[windows, seq_len]``.
    probes
        Sampled residuals per window: more make what is estimated from the gradients less noisy.
    """

    ids: npt.NDArray[np.int64]
    probes: int = 1

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def arrays(self) -> list[npt.NDArray[np.int64]]:
        """The token ids, ``[windows, seq_len]``."""
        return [self.ids]

    def __repr__(self) -> str:
        return f"Windows({' x '.join(map(str, self.ids.shape))} tokens, {self.probes} probes)"

    def batches(self, part: int, first: int, batch_windows: int) -> list[Batch]:
        """Batches in which a window counts once per probe; ``first`` windows come before these in other parts."""
        size = max(1, batch_windows // self.probes)
        return [
            Batch(part, number, first + start, self.probes, torch.from_numpy(self.ids[start : start + size].copy()))
            for number, start in enumerate(range(0, len(self.ids), size))
        ]


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows that are run together.

    Attributes
    ----------
    part
        Index of the `Windows` that they are of.
    number
        Index among the batches of the part.
    window
        Index of the first window, counted over all parts.
    probes
        Sampled residuals per window.
    ids
        int64 ``[windows, seq_len]``.
    inputs
        What else the model takes, for a sample with images or audio: float32 or integers, by the name of the argument.
    counted
        Bool ``[windows, seq_len]``: the tokens whose prediction matters; ``None``: all.
    where
        What a sample is called in errors.
    """

    part: int
    number: int
    window: int
    probes: int
    ids: torch.Tensor
    inputs: Mapping[str, torch.Tensor] = field(default_factory=dict)
    counted: torch.Tensor | None = None
    where: str = ""

    @property
    def name(self) -> str:
        """Distinct for every batch of a walk."""
        return f"{self.part}-{self.number}"

    @property
    def tokens(self) -> list[int]:
        """How many predictions of each window count."""
        windows, seq_len = self.ids.shape
        return [seq_len] * windows if self.counted is None else self.counted.sum(dim=1).tolist()


class Forward:
    """Runs ``skeleton`` batch by batch, and learns on the way what its own forward hands to each layer."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._calls: dict[str | tuple[int, ...], list[calls.Call]] = {}  # by `_key`: call of each layer

    def embed(self, batch: Batch) -> torch.Tensor:
        """Input of the first layer, float32 ``[windows, seq_len, hidden]``. ``skeleton.embedding`` must be filled.

        Raises
        ------
        ModelError
            The model cannot be run layer by layer.
        NumericError
            The states are not finite.
        """
        hidden, made = calls.embed(self._skeleton, batch.ids.to(self._skeleton.device))
        known = self._calls.setdefault(_key(batch), made)
        for layer, (one, other) in enumerate(zip(known, made, strict=True)):
            if not calls.is_same((one.args, one.kwargs), (other.args, other.kwargs)):
                raise ModelError(
                    "its arguments depend on the tokens, not only on their number",
                    where=self._skeleton.names[layer],
                    hint="such models cannot be walked layer by layer",
                )
        check_finite(hidden, "embedding", batch)
        return hidden

    def enter(self, batch: Batch) -> dict[int, torch.Tensor]:
        """As `calls.enter`, for a batch with or without `Batch.inputs`; towers must be filled for the former.

        Raises
        ------
        ModelError, NumericError
            As `embed`.
        DataError
            The model refuses the inputs.
        """
        if not batch.inputs:
            return {0: self.embed(batch)}
        skeleton = self._skeleton
        inputs = {name: values.to(skeleton.device) for name, values in {"input_ids": batch.ids, **batch.inputs}.items()}
        try:
            entered, self._calls[_key(batch)] = calls.enter(skeleton, skeleton.causal.base_model, inputs)
        except (IndexError, RuntimeError, TypeError, ValueError) as cause:  # whatever its own code raises on others
            raise DataError(
                f"{type(skeleton.causal).__name__} cannot take it ({cause})",
                where=batch.where,
                hint="a sample holds what the processor of this very model returns",
            ) from cause
        for layer, states in entered.items():
            check_finite(states, f"input of layer {layer}", batch)
        return entered

    def call(self, layer: int, batch: Batch) -> calls.Call:
        """What ``layer`` is called with for ``batch``, which `embed` or `enter` has seen."""
        return self._calls[_key(batch)][layer]

    def layer(self, layer: int, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Output of ``layer``, whose tensors must be filled, for ``hidden`` of the windows of ``batch``."""
        output = calls.run(self._skeleton, layer, hidden, self.call(layer, batch))
        check_finite(output, f"layer {layer}", batch)
        return output


def _key(batch: Batch) -> str | tuple[int, ...]:
    """Batches of text get the same arguments if they have the same shape; those of samples need not."""
    return batch.name if batch.inputs else tuple(batch.ids.shape)


def check_finite(values: torch.Tensor, what: str, batch: Batch) -> None:
    """Refuse NaN and infinity in ``values`` of shape ``[windows, seq_len, hidden]``.

    Raises
    ------
    NumericError
        Names ``what``, the window, its first token ids, by which it is found in the data, and the first bad token.
    """
    finite = values.detach().isfinite().all(dim=2)
    if not finite.all():
        number, token = map(int, finite.logical_not().nonzero()[0])
        ids = batch.ids[number]
        begin = " ".join(str(int(each)) for each in ids[:_SHOWN_IDS])
        raise NumericError(
            f"activations are NaN or infinite from token {token} on; the window has the ids {begin} ...",
            where=f"{what}, {batch.where or f'window {batch.window + number}'}",
            hint="look for damaged weights in this layer or before it; if only this window fails, leave it out",
        )


def check_windows(model: Model, parts: Sequence[Windows | Samples], *, seed: int, batch_windows: int) -> None:
    """Refuse windows that ``model`` cannot be run on.

    Raises
    ------
    ArgumentError
        A number that must be positive is not, or there are no windows at all.
    DataError
        Windows are empty or have ids that the model does not have.
    """
    probes = min((part.probes for part in parts), default=0)
    if probes < 1 or batch_windows < 1 or seed < 0:
        raise ArgumentError(
            f"probes {probes} and batch_windows {batch_windows} must be positive, seed {seed} not negative"
        )
    for part in parts:
        for ids in part.arrays:
            if ids.ndim != 2 or ids.size == 0:
                raise DataError(f"tokens have shape {list(ids.shape)}, expected [windows, seq_len]")
            check_ids(ids, model, "tokens")
