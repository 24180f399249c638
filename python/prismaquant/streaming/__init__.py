"""Data through the model: text to tokens, and `walk`: one layer's inputs and output gradients at a time.

    tokens       text or token ids -> windows, with sources, documents, tokenization, packing and mixing
    skeleton     the transformers model without weights; a module is real only while it is in use
    samples      prompts with images or audio, as files or as the processor makes them
    processing   conversations -> what the processor returns
    forward      the layers, on one batch of windows at a time
    calls        what the model's own forward hands to each decoder layer
    residual     the top: final norm, head, and the sampled residuals that start the gradients
    divergence   how far logits are from those of the source
    observation  what a Linear saw: its input and its output gradients
    products     bfloat16 where the processor has it
    gradients    the gradients that reach it
    experts      the same for banks of experts, which are run expert by expert
    spool        hidden states and gradients that wait, in memory or in files
    walk         the two sweeps

Imports torch and transformers.
"""

from __future__ import annotations

from prismaquant.streaming.forward import Batch, Windows
from prismaquant.streaming.observation import Observation
from prismaquant.streaming.samples import Sample, Samples, read_samples
from prismaquant.streaming.spool import Spool
from prismaquant.streaming.tokens import Tokens, read_tokens
from prismaquant.streaming.walk import Visit, walk

__all__ = [
    "Batch",
    "Observation",
    "Sample",
    "Samples",
    "Spool",
    "Tokens",
    "Visit",
    "Windows",
    "read_samples",
    "read_tokens",
    "walk",
]
