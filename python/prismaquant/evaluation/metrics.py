"""Metrics of two sets of logits, per token: pure functions that work in slices, to keep temporaries small."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["kl_divergence", "next_token_loss", "same_top1"]

#: Logits per slice: 16 MiB of float32 per temporary.
_SLICE = 2**22


def kl_divergence(source: Tensor, checkpoint: Tensor) -> Tensor:
    """KL(source || checkpoint) over the full vocabulary, in nats.

    With ``p`` the source's probabilities and ``d`` the difference of the logits, shifted so that its mean under ``p``
    is zero, KL = log E_p[exp d] = log1p(sum p (expm1(d) - d)). Every term of the sum is >= 0, so nothing cancels: for
    logits that differ by 1e-3, where the textbook form sum p (log p - log q) has two right digits in float32, the mean
    over tokens has six. Equal logits give exactly zero.

    Parameters
    ----------
    source, checkpoint
        float32 ``[..., vocabulary]``.

    Returns
    -------
    Tensor
        float32 ``[...]``, one value per token.
    """
    return _sliced(_kl, source, checkpoint)


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


def _kl(source: Tensor, checkpoint: Tensor) -> Tensor:
    p = source.softmax(-1)
    d = checkpoint - source
    d -= (p * d).sum(-1, keepdim=True)
    kl = torch.log1p(torch.expm1(d).sub_(d).mul_(p).sum(-1))
    far = ~torch.isfinite(kl)  # exp overflowed: so large a difference has no digits to lose
    kl[far] = (source[far].log_softmax(-1) + d[far]).logsumexp(-1)
    return kl


def _sliced(function: Callable[[Tensor, Tensor], Tensor], source: Tensor, checkpoint: Tensor) -> Tensor:
    """``function`` over slices of all but the last axis."""
    tokens = max(1, _SLICE // source.shape[-1])
    pairs = zip(*(torch.split(logits.flatten(0, -2), tokens) for logits in (source, checkpoint)), strict=True)
    return torch.cat([function(a, b) for a, b in pairs]).view(source.shape[:-1])
