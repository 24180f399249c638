"""Weights as llm-compressor rounds them: to nearest, with the scales of its observers, and by GPTQ."""

from __future__ import annotations

import torch
from compressed_tensors.quantization.lifecycle.forward import forward_quantize
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers import Modifier
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from peer_task import BATCH, Recipe, decoder_linears, run
from torch import nn

_UNIFORM = {"targets": ["Linear"], "ignore": ["lm_head"], "scheme": "NVFP4A16"}
_EXPANDED = {"weight_observer": "nvfp4_expanded_mse"}


def recipe(modifier: Modifier) -> Recipe:
    """What one modifier makes of the model."""

    def quantize(model: nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = {"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()}
        calibration = {"num_calibration_samples": ids.shape[0], "max_seq_length": ids.shape[1], "batch_size": BATCH}
        oneshot(model=model, dataset=Dataset.from_dict(rows), recipe=modifier, **calibration)
        with torch.no_grad():
            return {name: _decoded(module) for name, module in decoder_linears(model).items()}

    return quantize


def _decoded(module: nn.Linear) -> torch.Tensor:
    """Weights as they will be loaded; those of GPTQ stay as they are."""
    return forward_quantize(module, module.weight, "weight", module.quantization_scheme.weights)


if __name__ == "__main__":
    run(
        {
            "rtn": recipe(QuantizationModifier(**_UNIFORM)),
            "mse": recipe(QuantizationModifier(**_UNIFORM, **_EXPANDED)),
            "gptq": recipe(GPTQModifier(**_UNIFORM, **_EXPANDED, actorder="static")),
        },
        packages=["llmcompressor", "compressed-tensors"],
    )
