"""Weights as auto-round rounds them: rounding and clipping tuned by signed gradients, and its tuning-free search."""

from __future__ import annotations

import torch
from auto_round import AutoRound
from peer_task import BATCH, Recipe, decoder_linears, run
from torch import nn

_WEIGHTS_ONLY = {"act_bits": 16, "act_data_type": "float", "act_dynamic": True}


def recipe(iterations: int) -> Recipe:
    """Tuning in as many steps, in its default precision; with none, the search that auto-round calls optimized RTN."""

    def quantize(model: nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        calibration = {"dataset": list(ids.split(BATCH)), "nsamples": ids.shape[0], "seqlen": ids.shape[1]}
        tuner = AutoRound(
            model,
            tokenizer=object(),  # not asked for anything where ids are given
            scheme="NVFP4",
            iters=iterations,
            batch_size=BATCH,
            device_map="cpu",
            enable_torch_compile=False,
            **calibration,
            **_WEIGHTS_ONLY,
        )
        quantized, _ = tuner.quantize()
        return {name: module.weight for name, module in decoder_linears(quantized).items()}

    return quantize


if __name__ == "__main__":
    run({"opt-rtn": recipe(0), "tuned": recipe(200)}, packages=["auto-round"])
