"""`evaluate`: what a checkpoint costs against its source, on text that was not used to make it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from prismaquant.errors import ArgumentError, ModelError
from prismaquant.evaluation.bootstrap import bootstrap_mean
from prismaquant.evaluation.cache import CacheScales, read_cache_scales, rounded_cache
from prismaquant.evaluation.expert_inputs import rounded_expert_inputs
from prismaquant.evaluation.identity import folder_fingerprint
from prismaquant.evaluation.load import load
from prismaquant.evaluation.metrics import kl_divergence, next_token_loss, same_top1
from prismaquant.files.evaluation import Evaluation
from prismaquant.model import Model, open_model
from prismaquant.progress import Event, Progress, silent
from prismaquant.streaming import read_tokens
from prismaquant.types import PathLike

__all__ = ["evaluate"]

#: Logits of one batch of windows and one model: 64 MiB in float32, or those of one window where it has more.
_BATCH_LOGITS = 2**24


def evaluate(
    checkpoint: PathLike,
    *,
    source: PathLike,
    data: PathLike,
    tokens: int = 16384,
    seq_len: int = 256,
    seed: int = 0,
    previous: Evaluation | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """KL divergence, top-1 agreement and perplexity of ``checkpoint`` against ``source`` on held-out text.

    Both models stay in memory (8 bytes per parameter) and see the same windows a few at a time; no logits are stored:
    for 16384 tokens and a vocabulary of 128k, the source's alone would take 8 GB. Input quantization of the
    checkpoint's schemes is active. Arithmetic is float32 (see `prismaquant.evaluation.load` for why and how).

    Parameters
    ----------
    checkpoint
        The folder to judge; a folder equal to the source has a KL of exactly 0.
    source
        The folder it was made from.
    data
        Text or token ids that were used neither to train, if possible, nor to calibrate (see `read_tokens`).
    tokens, seq_len
        How many tokens to measure, in windows of how many. The interval is one over windows: take at least 30.
    seed
        Seed of the choice of windows and of the bootstrap.
    previous
        An earlier result; returned as it is if it is of the same folders and the same windows.

    Raises
    ------
    ModelError
        A folder cannot be loaded, gives non-finite logits, or has another vocabulary than its source.
    DataError
        The data cannot be used, or holds too few tokens (see `read_tokens`).
    ArgumentError
        ``tokens`` or ``seq_len`` are too small.
    """
    start = time.perf_counter()
    if seq_len < 2 or tokens < 2 * seq_len:
        raise ArgumentError(
            f"tokens={tokens} in windows of seq_len={seq_len} are too few",
            where="tokens, seq_len",
            hint="give seq_len >= 2 and tokens for at least two windows",
        )
    model, folder = open_model(source), Path(checkpoint)
    text = read_tokens(data, model, samples=tokens // seq_len, seq_len=seq_len, seed=seed)
    inputs = folder_fingerprint(folder), model.fingerprint, text.fingerprint
    if previous and (previous.checkpoint, previous.source, previous.data) == inputs:
        return previous
    measured = _measure(model, folder, torch.from_numpy(text.ids), progress)
    kl = measured.kl.astype(np.float64)
    return Evaluation(
        *inputs,
        kl=bootstrap_mean(kl.mean(axis=1), seed=seed),
        kl_p99=float(np.quantile(kl, 0.99)),
        top1=bootstrap_mean(measured.top1.mean(axis=1), seed=seed),
        perplexity=math.exp(measured.loss.mean(dtype=np.float64)),
        source_perplexity=math.exp(measured.source_loss.mean(dtype=np.float64)),
        tokens=kl.size,
        seq_len=seq_len,
        seconds=time.perf_counter() - start,
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """Per token: ``kl`` and ``top1`` ``[windows, seq_len]``, the losses ``[windows, seq_len - 1]``."""

    kl: npt.NDArray[np.float32]
    top1: npt.NDArray[np.bool_]
    loss: npt.NDArray[np.float32]
    source_loss: npt.NDArray[np.float32]


def _measure(source: Model, checkpoint: Path, ids: torch.Tensor, progress: Progress) -> _Measured:
    """Both models over all windows ``ids`` int64 ``[windows, seq_len]``."""
    progress(Event("evaluate", 0, len(ids), "loading"))
    folders = source.path, checkpoint
    models = [load(folder) for folder in folders]
    caches = [read_cache_scales(folder) for folder in folders]
    batch = max(1, _BATCH_LOGITS // (int(source.text_config["vocab_size"]) * ids.shape[1]))
    parts = []
    with rounded_expert_inputs(models[1], source, checkpoint):
        for done in range(0, len(ids), batch):
            windows = ids[done : done + batch]
            p, q = (_logits(*each, windows) for each in zip(models, caches, folders, strict=True))
            if p.shape != q.shape:
                raise ModelError(
                    f"has a vocabulary of {q.shape[-1]}, its source one of {p.shape[-1]}",
                    where=str(checkpoint),
                    hint="give the model that the checkpoint was made from as source",
                )
            losses = next_token_loss(q, windows), next_token_loss(p, windows)
            parts.append((kl_divergence(p, q), same_top1(p, q), *losses))
            progress(Event("evaluate", done + len(windows), len(ids), "windows"))
    return _Measured(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))


@torch.no_grad()
def _logits(model: PreTrainedModel, cache: CacheScales, folder: Path, ids: torch.Tensor) -> torch.Tensor:
    with rounded_cache(model, cache):
        logits: torch.Tensor = model(ids, use_cache=False).logits
    if not torch.isfinite(logits).all():
        raise ModelError(
            "gives logits that are not finite", where=str(folder), hint="its weights are damaged; check it with verify"
        )
    return logits
