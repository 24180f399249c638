"""Weights as ModelOpt rounds them: scales by magnitude, error or local Hessian, four-over-six, and GPTQ.

All is ModelOpt's own code, but for one kernel without a GPU: its fake quantization of blocks is written in Triton
alone, and `static_blockwise_fp4_fake_quant` below stands in for it.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import modelopt.torch.kernels.quantization.gemm as kernels
import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.quantization.tensor_quant import scaled_e4m3_impl
from peer_task import BATCH, Recipe, decoder_linears, run
from torch import nn

_INPUTS_AS_THEY_ARE = {"quantizer_name": "*input_quantizer", "enable": False}
_LAYER_BY_LAYER = {"method": "gptq", "layerwise": {"enable": True}}


def recipe(preset: dict[str, Any], algorithm: str | dict[str, Any] | None = None) -> Recipe:
    """The weights' share of a preset, with its algorithm or another one."""
    config = deepcopy(preset)
    config["quant_cfg"].append(_INPUTS_AS_THEY_ARE)
    config["algorithm"] = algorithm or config["algorithm"]

    def quantize(model: nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        def feed(network: nn.Module) -> None:
            for part in ids.split(BATCH):
                network(part, use_cache=False)

        with torch.no_grad():
            mtq.quantize(model, config, feed)
            return {name: module.weight_quantizer(module.weight) for name, module in decoder_linears(model).items()}

    return quantize


def static_blockwise_fp4_fake_quant(
    x: torch.Tensor,
    amax: torch.Tensor,
    global_amax: torch.Tensor,
    quantize_block_scales: bool,
    fp8_max_for_normalization: float,
    out_dtype: torch.dtype,
) -> torch.Tensor:
    """As the Triton function of this name: to the nearest E2M1 under the scale ``amax / 6``, itself in E4M3."""
    scale = amax.float().reshape(-1, 1) / 6
    if quantize_block_scales:
        scale = scaled_e4m3_impl(scale, global_amax.float() * (448 / fp8_max_for_normalization) / 6)
    values = x.float().reshape(len(scale), -1)
    magnitudes = values.abs() / torch.where(scale == 0, 1, scale)
    # Steps of 1/2 up to 2, of 1 up to 4, of 2 above; halves go to the even code, as torch rounds them.
    step = torch.where(magnitudes < 2, 0.5, torch.where(magnitudes < 4, 1.0, 2.0))
    rounded = ((magnitudes / step).round() * step).clamp(max=6)
    return (rounded * scale).copysign(values).reshape(x.shape).to(out_dtype)


if __name__ == "__main__":
    if not kernels.IS_AVAILABLE:
        kernels.static_blockwise_fp4_fake_quant = static_blockwise_fp4_fake_quant
        kernels.IS_AVAILABLE = True
    _MSE = mtq.NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG
    run(
        {
            "rtn": recipe(_MSE, "max"),
            "four-over-six": recipe(mtq.NVFP4_FOUR_OVER_SIX_CFG),
            "mse": recipe(_MSE),
            "local-hessian": recipe(mtq.NVFP4_W4A4_WEIGHT_LOCAL_HESSIAN_CFG),
            "gptq": recipe(_MSE, _LAYER_BY_LAYER),
        },
        packages=["nvidia-modelopt"],
    )
