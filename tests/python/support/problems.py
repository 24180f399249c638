"""Random layers for solvers, and their objective by its definition in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from prismaquant.codec import Quantized, get_codec
from prismaquant.types import Array

__all__ = ["Problem", "damped", "make_problem"]


@dataclass(frozen=True)
class Problem:
    """A weight, and inputs and output gradients of as many tokens."""

    weight: Array
    inputs: Array
    gradients: Array

    @property
    def tokens(self) -> int:
        return len(self.inputs)

    @property
    def gram(self) -> Array:
        return self.inputs.T @ self.inputs

    @property
    def output_gram(self) -> Array:
        return self.gradients.T @ self.gradients

    @property
    def one_sided(self) -> dict[str, Any]:
        return {"gram": self.gram, "tokens": self.tokens}

    @property
    def two_sided(self) -> dict[str, Any]:
        return {**self.one_sided, "output_gram": self.output_gram}

    def deviation(self, quantized: Quantized) -> Array:
        decoded: Array = get_codec(quantized.format).decode(quantized).astype(np.float64)
        return decoded - self.weight.astype(np.float64)

    def objective(self, quantized: Quantized, output_gram: Array | None = None) -> float:
        """``tr(D' G D H)`` with the default damping; ``output_gram``: G per token, damped; by default the identity."""
        d = self.deviation(quantized)
        left = d if output_gram is None else output_gram @ d
        return float(np.sum(left * (d @ damped(self.gram, self.tokens))))


def damped(gram: Array, tokens: int) -> Array:
    """Per token, with the share ``min(1, 1.2 sqrt(dimension / tokens))`` of the mean diagonal added to the diagonal."""
    mean: Array = gram.astype(np.float64) / tokens
    share = min(1.0, 1.2 * float(np.sqrt(len(gram) / tokens)))
    return mean + share * np.trace(mean) / len(gram) * np.eye(len(gram))


def make_problem(rows: int = 48, columns: int = 256, tokens: int = 2000, seed: int = 0) -> Problem:
    """Inputs and gradients whose dimensions are correlated and of unlike size, as those of trained layers are."""
    rng = np.random.default_rng(seed)

    def vectors(count: int, size: int) -> Array:
        mixed = rng.standard_normal((count, size)) @ rng.standard_normal((size, size)) / np.sqrt(size)
        return (mixed * np.exp(rng.standard_normal(size))).astype(np.float32)

    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    return Problem(weight, vectors(tokens, columns), vectors(tokens, rows))
