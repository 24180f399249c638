"""How far logits are from those of the source model: the one formula of all stages."""

from __future__ import annotations

import torch

__all__ = ["divergence"]


def divergence(source: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(source || other) over the full vocabulary, in nats.

    With ``p`` the source's probabilities and ``d`` the difference of the logits, shifted so that its mean under ``p``
    is zero, KL = log E_p[exp d] = log1p(sum p (expm1(d) - d)). Every term of the sum is >= 0, so nothing cancels: for
    logits that differ by 1e-3, where the textbook form sum p (log p - log q) has two right digits in float32, the mean
    over tokens has six. Equal logits give exactly zero.

    Parameters
    ----------
    source, other
        float32 ``[tokens, vocabulary]``.

    Returns
    -------
    torch.Tensor
        float32 ``[tokens]``.
    """
    p = source.softmax(-1)
    d = other - source
    d -= (p * d).sum(-1, keepdim=True)
    kl = torch.log1p(torch.expm1(d).sub_(d).mul_(p).sum(-1))
    far = ~torch.isfinite(kl)  # exp overflowed: so large a difference has no digits to lose
    kl[far] = (source[far].log_softmax(-1) + d[far]).logsumexp(-1)
    return kl
