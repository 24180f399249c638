"""What the model's own forward hands to each decoder layer: learned by running it with the layers replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prismaquant.errors import ModelError

if TYPE_CHECKING:
    from prismaquant.streaming.skeleton import Skeleton

__all__ = ["Call", "embed", "enter", "is_same", "logits", "run"]


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of one layer after the hidden states: masks, rotary embeddings, positions."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def embed(skeleton: Skeleton, ids: torch.Tensor) -> tuple[torch.Tensor, list[Call]]:
    """Hidden states that enter the first layer, and the call of every layer.

    Parameters
    ----------
    ids
        int64 ``[windows, seq_len]``. Embedding and ``skeleton.rest`` must be filled.

    Returns
    -------
    hidden
        float32 ``[windows, seq_len, hidden]``.
    calls
        One per layer.

    Raises
    ------
    ModelError
        As `enter`; or something is added between layers.
    """
    with torch.no_grad():
        entered, calls = enter(skeleton, skeleton.decoder, {"input_ids": ids})
    if len(entered) > 1:
        raise ModelError(
            "does not get what the layer before it returns",
            where=skeleton.names[max(entered)],
            hint="such models cannot be walked layer by layer",
        )
    return entered[0], calls


def enter(
    skeleton: Skeleton, model: nn.Module, inputs: Mapping[str, torch.Tensor]
) -> tuple[dict[int, torch.Tensor], list[Call]]:
    """Run ``model``, which has the decoder in it, on ``inputs``, its layers aside. Differentiable.

    Returns
    -------
    entered
        Layer -> what the model adds to the hidden states in front of it, float32 ``[windows, seq_len, hidden]``: all of
        them for the first layer, and for a later one what towers give to it (DeepStack, arXiv 2406.04334).
    calls
        One per layer.

    Raises
    ------
    ModelError
        If a layer gets an object that could carry state to other layers, not every layer is called once, in order, or
        something is added behind the last one.
    """
    entered: dict[int, torch.Tensor] = {}
    calls: list[Call] = []
    returned: list[torch.Tensor] = []
    order: list[int] = []

    def record(layer: int, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        for name, value in [*((str(i), value) for i, value in enumerate(args)), *kwargs.items()]:
            if not _is_plain(value):
                raise ModelError(
                    f"argument {name!r} of {type(skeleton.layers[layer]).__name__} is a {type(value).__name__}",
                    where=skeleton.names[layer],
                    hint="models whose layers share state cannot be walked layer by layer",
                )
        order.append(layer)
        calls.append(Call(args, kwargs))
        if not returned or hidden_states is not returned[-1]:
            entered[layer] = hidden_states
        returned.append(torch.zeros_like(hidden_states))  # so that the next layer gets what was added, and no more
        return returned[-1]

    def check_last(norm: nn.Module, args: tuple[Any, ...]) -> None:
        if args and returned and args[0] is not returned[-1]:
            raise ModelError(
                "does not get what the last layer returns",
                where=f"the norm of {type(skeleton.decoder).__name__}",
                hint="models that add something behind their last layer cannot be walked layer by layer",
            )

    norm = getattr(skeleton.decoder, "norm", None)
    watched = norm.register_forward_pre_hook(check_last) if isinstance(norm, nn.Module) else nullcontext()
    with _replaced(skeleton.layers, record), watched:
        model(**inputs, use_cache=False)
    if order != list(range(len(skeleton.layers))):
        raise ModelError(f"{type(skeleton.decoder).__name__} calls its layers in the order {order}")
    return entered, calls


def logits(skeleton: Skeleton, hidden: torch.Tensor) -> torch.Tensor:
    """Logits ``[tokens, vocabulary]`` of last hidden states ``[tokens, hidden]``: final norm, head, soft caps.

    Head and ``skeleton.rest`` must be filled. Differentiable.
    """

    def replay(layer: int, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return states

    states = hidden.unsqueeze(0)
    # inputs_embeds only gives the shape: a model may scale it, so the last layer answers with the states themselves.
    with _replaced(skeleton.layers, replay):
        output: torch.Tensor = skeleton.causal(inputs_embeds=states, use_cache=False).logits
    return output.squeeze(0)


def run(skeleton: Skeleton, layer: int, hidden: torch.Tensor, call: Call) -> torch.Tensor:
    """Output of ``layer`` for hidden states ``[windows, seq_len, hidden]``: same shape, float32.

    Raises
    ------
    ModelError
        If the layer returns anything else.
    """
    module = skeleton.layers[layer]
    output = module(hidden, *call.args, **call.kwargs)
    if not isinstance(output, torch.Tensor) or output.shape != hidden.shape or output.dtype != hidden.dtype:
        got = (
            f"{output.dtype} {list(output.shape)}" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        )
        raise ModelError(
            f"{type(module).__name__} returns {got}, expected {hidden.dtype} {list(hidden.shape)}",
            where=skeleton.names[layer],
        )
    return output


def is_same(one: Any, other: Any) -> bool:
    """Whether two plain arguments are equal, tensors by value."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and (one is other or torch.equal(one, other))
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(is_same(one[k], other[k]) for k in one)
    return bool(one == other)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (torch.Tensor, bool, int, float, str))


@contextmanager
def _replaced(layers: Sequence[nn.Module], forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Inside, calling layer ``i`` means ``forward(i, ...)``."""
    try:
        for index, layer in enumerate(layers):
            vars(layer)["forward"] = partial(forward, index)  # an instance attribute hides the method
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
