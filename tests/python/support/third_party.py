"""Quantized folders written by compressed-tensors alone: `compress`."""

from __future__ import annotations

import shutil
from pathlib import Path

from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

__all__ = ["compress"]


def compress(source: Path, folder: Path, schemes: dict[str, str], *, input_amax: float = 8.0) -> Path:
    """Quantize ``source`` into ``folder``: preset name -> target of its Linears. Siblings share no scales."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    groups = {f"group_{i}": preset_name_to_scheme(name, [target]) for i, (name, target) in enumerate(schemes.items())}
    apply_quantization_config(
        model, QuantizationConfig(config_groups=groups, ignore=["lm_head"], quantization_status="compressed")
    )
    for module in model.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is None:
            continue
        weight, global_scale = module.weight.data.float(), None
        if scheme.weights.strategy == "tensor_group":
            global_scale = generate_gparam(weight.min(), weight.max())
            module.weight_global_scale.data.copy_(global_scale)
            blocks = weight.unflatten(-1, (-1, scheme.weights.group_size))
            low, high = blocks.amin(-1), blocks.amax(-1)
            if scheme.input_activations is not None:
                module.input_global_scale.data.fill_(6 * 448 / input_amax)
        else:
            low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
        module.weight_scale.data.copy_(calculate_qparams(low, high, scheme.weights, global_scale)[0])
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    compressor.update_config(str(folder))
    return folder
