"""Data through the model: text to tokens, and `walk`: one layer's inputs and output gradients at a time.

    tokens       text or token ids -> windows
    skeleton     the transformers model without weights; a module is real only while it is in use
    calls        what the model's own forward hands to each decoder layer
    residual     the top: final norm, head, and the sampled residuals that start the gradients
    observation  what a Linear saw: its input and its output gradients
    walk         the two sweeps

Imports torch and transformers.
"""

from __future__ import annotations

from prismaquant.streaming.observation import Observation
from prismaquant.streaming.tokens import Tokens, read_tokens
from prismaquant.streaming.walk import Visit, walk

__all__ = ["Observation", "Tokens", "Visit", "read_tokens", "walk"]
