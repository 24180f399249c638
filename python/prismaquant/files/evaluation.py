"""`Evaluation`: what was measured between a checkpoint and its source. Written by `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prismaquant.files import record

__all__ = ["SCHEMA", "Estimate", "Evaluation", "read", "write"]

SCHEMA = "prismaquant.evaluation/1"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its bootstrap 95 % interval over windows."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of `evaluate`.

    Attributes
    ----------
    checkpoint
        Fingerprint of the folder that was judged.
    source
        Fingerprint of the model it was made from.
    data
        Fingerprint of the evaluation tokens.
    kl
        KL(source || checkpoint) over the full vocabulary, nats per token.
    kl_p99
        99th percentile over tokens.
    top1
        Share of tokens at which both models rank the same token first.
    perplexity
        ``exp`` of the mean next-token cross entropy of the checkpoint on the evaluation text.
    source_perplexity
        The same of the source.
    tokens
        How many tokens were measured.
    seq_len
        Tokens per window.
    seconds
        Wall time of both forward passes and the loading.
    """

    checkpoint: str
    source: str
    data: str
    kl: Estimate
    kl_p99: float
    top1: Estimate
    perplexity: float
    source_perplexity: float
    tokens: record.Positive
    seq_len: record.Positive
    seconds: float

    def __repr__(self) -> str:
        return f"Evaluation(KL {self.kl} nats/token, top-1 {self.top1.value:.1%}, {self.tokens} tokens)"


def write(path: Path, evaluation: Evaluation) -> None:
    """Write the file."""
    record.write(path, evaluation, SCHEMA)


def read(path: Path) -> Evaluation:
    """Read the file; raises `StageFileError`."""
    return record.read(path, Evaluation, SCHEMA)
