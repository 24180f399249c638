"""Metrics of two sets of logits, per token: pure functions that work in slices, to keep temporaries small."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prismaquant.streaming.divergence import divergence

__all__ = ["kl_divergence", "next_token_loss", "same_top1"]

#: Logits per slice: 16 MiB of float32 per temporary.
_SLICE = 2**22


def kl_divergence(source: Tensor, checkpoint: Tensor) -> Tensor:
    """KL(source || checkpoint) over the full vocabulary, in nats, by the formula of `divergence`.

    Parameters
    ----------
    source, checkpoint
        float32 ``[..., vocabulary]``.

    Returns
    -------
    Tensor
        float32 ``[...]``, one value per token.
    """
    return _sliced(divergence, source, checkpoint)


def same_top1(source: Tensor, checkpoint: Tensor) -> Tensor:
    """Whether both rank the same token first.

    Parameters
    ----------
    source, checkpoint
        ``[..., vocabulary]``.

    Returns
    -------
    Tensor
        bool ``[...]``.
    """
    return _sliced(lambda a, b: a.argmax(-1) == b.argmax(-1), source, checkpoint)


def next_token_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross entropy of each next token of the text, in nats.

    Parameters
    ----------
    logits
        float32 ``[windows, seq_len, vocabulary]``.
    ids
        int64 ``[windows, seq_len]``, the tokens that the logits were computed from.

    Returns
    -------
    Tensor
        float32 ``[windows, seq_len - 1]``: the loss at position ``t`` is that of token ``t + 1``.
    """
    loss = torch.nn.functional.cross_entropy
    return torch.stack([loss(z[:-1], i[1:], reduction="none") for z, i in zip(logits, ids, strict=True)])


def _sliced(function: Callable[[Tensor, Tensor], Tensor], source: Tensor, checkpoint: Tensor) -> Tensor:
    """``function`` over slices of all but the last axis."""
    tokens = max(1, _SLICE // source.shape[-1])
    pairs = zip(*(torch.split(logits.flatten(0, -2), tokens) for logits in (source, checkpoint)), strict=True)
    return torch.cat([function(a, b) for a, b in pairs]).view(source.shape[:-1])
