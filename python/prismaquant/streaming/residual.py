"""The top of the model: logits, and the sampled residuals whose gradients make the Fisher matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from prismaquant.errors import NumericError

__all__ = ["Signs", "residual", "top_gradients"]

#: Most logits that are formed at once (64 MiB in float32; about six such arrays live at the same time).
_MAX_LOGITS = 1 << 24


class Signs:
    """Random signs of one window and probe, token after token; independent of how many are drawn at once."""

    def __init__(self, seed: int, window: int, probe: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, window, probe]))

    def draw(self, tokens: int, vocabulary: int) -> torch.Tensor:
        """Bool ``[tokens, vocabulary]``: True for +1, False for -1."""
        words = -(-vocabulary // 64)
        raw = np.asarray(self._bits.random_raw(tokens * words), dtype="<u8").view(np.uint8).reshape(tokens, 8 * words)
        return torch.from_numpy(np.unpackbits(raw, axis=1, count=vocabulary)).bool()


def residual(logits: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """A random ``r`` per token with ``E[r r^T] = diag(p) - p p^T``, the Hessian of KL(p || q) in the logits at q = p.

    ``r = sqrt(p) * eps - p <sqrt(p), eps>`` with ``eps`` the signs: their second moment is the identity, and
    ``(I - p 1^T) diag(sqrt(p))`` is the factor of that matrix.

    Parameters
    ----------
    logits
        Float ``[tokens, vocabulary]``.
    signs
        Bool ``[tokens, vocabulary]``.
    """
    log_p = torch.log_softmax(logits, dim=-1)
    root = (0.5 * log_p).exp()
    root = torch.where(signs, root, -root)
    return root - log_p.exp() * root.sum(dim=-1, keepdim=True)


def top_gradients(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    vocabulary: int,
    hidden: torch.Tensor,
    window: int,
    probes: int,
    seed: int,
) -> torch.Tensor:
    """Gradients of ``<r, logits>`` in the hidden states of one window behind the last layer, one per probe.

    Parameters
    ----------
    logits_of
        Hidden states ``[tokens, hidden]`` -> logits ``[tokens, vocabulary]``.
    hidden
        float32 ``[seq_len, hidden]``.
    window
        Its index in the data; with ``seed`` and the probe it fixes the signs.

    Returns
    -------
    float32 ``[probes, seq_len, hidden]``.

    Raises
    ------
    NumericError
        If a logit is not finite.
    """
    signs = [Signs(seed, window, probe) for probe in range(probes)]
    gradients = hidden.new_empty((probes, *hidden.shape))
    step = max(1, _MAX_LOGITS // vocabulary)
    for start in range(0, len(hidden), step):
        part = hidden[start : start + step].detach().requires_grad_()
        with torch.enable_grad():
            logits = logits_of(part)
        if not logits.isfinite().all():
            raise NumericError("logits are NaN or infinite", where=f"window {window}")
        for probe in range(probes):
            r = residual(logits.detach(), signs[probe].draw(*logits.shape).to(logits.device))
            (gradient,) = torch.autograd.grad(logits, part, r, retain_graph=probe + 1 < probes)
            gradients[probe, start : start + step] = gradient
    return gradients
