"""`Mtp`: the layer that predicts a further token, put together from the model's own modules.

transformers builds the models without it. Its loss is its own: the divergence of what it predicts, not of the model.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prismaquant.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prismaquant.streaming.calls import Call

__all__ = ["Mtp"]


class Mtp(nn.Module):
    """Embedding of the next token and final hidden state -> hidden state in front of the head.

    Parameters
    ----------
    decoder, layers
        The model's decoder and its layers, whose parameters have no storage; the same holds for those of this module.

    Attributes
    ----------
    like
        Index of the decoder layer that ``block`` has the form of: the last one with full attention.

    Raises
    ------
    ModelError
        The decoder has no such layer, or no final norm.
    """

    def __init__(self, decoder: Any, layers: Sequence[nn.Module], where: str) -> None:
        super().__init__()
        kinds = getattr(decoder.config, "layer_types", None) or ["full_attention"] * len(layers)
        full = [index for index, kind in enumerate(kinds) if kind == "full_attention"]
        norm, hidden = getattr(decoder, "norm", None), int(decoder.config.hidden_size)
        if not full or norm is None:
            raise ModelError(
                f"{type(decoder).__name__} has no layer or no norm of the form of an MTP layer", where=where
            )
        self.like = full[-1]
        self.block = copy.deepcopy(layers[self.like])
        with torch.device("meta"):
            self.projection = nn.Linear(2 * hidden, hidden, bias=False)
        self.embedding_norm, self.hidden_norm, self.norm = (copy.deepcopy(norm) for _ in range(3))

    def join(self, embedded: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Input of ``projection``: both states ``[windows, seq_len, hidden]``, normed, one behind the other."""
        return torch.cat([self.embedding_norm(embedded), self.hidden_norm(hidden)], dim=-1)

    def forward(self, joined: torch.Tensor, call: Call) -> torch.Tensor:
        """``[windows, seq_len, 2 hidden]`` to ``[..., hidden]``, before ``norm``; ``call`` is of ``like``."""
        output: torch.Tensor = self.block(self.projection(joined), *call.args, **call.kwargs)
        return output
