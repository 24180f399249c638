"""Loads a folder as its users do: transformers and compressed-tensors, nothing of ours in between.

What is measured is the loss of quantization, not of bfloat16 arithmetic, whose own noise is a good part of the KL
divergence of an FP8 checkpoint. So both models run in float32, on the very weights that a user gets:

1. ``from_pretrained(dtype="auto")`` reads the stored tensors as they are. Asked for float32 here, compressed-tensors
   would still decode 4-bit weights into bfloat16, which then meet float32 inputs and fail.
2. The first forward pass decodes every quantized weight into bfloat16, in place. It must not run under
   ``torch.inference_mode``: tensors made there do not work in the forward pass of compressed-tensors.
3. Then all parameters are widened to float32, which is exact. Before step 2, the decoding would fail as in step 1.

Quantized experts are the exception: transformers reads them wrong, so they are decoded before (`experts`). The Linears
of bitsandbytes are no less: they stay packed and would multiply in bfloat16, so transformers is asked to decode them.

The quantizers of the inputs stay active (per token in FP8_DYNAMIC, per 16 columns in NVFP4): compressed-tensors applies
them in the forward pass of each Linear, now with float32 scales, as the kernels of engines do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from prismaquant.errors import MissingExtraError, ModelError
from prismaquant.evaluation.experts import decoded_experts
from prismaquant.streaming.model_class import model_class, read_config
from prismaquant.streaming.quiet import quiet

__all__ = ["load"]


def load(folder: Path) -> PreTrainedModel:
    """The model in ``folder``, quantized or not, in float32, ready for the forward pass.

    Code inside the folder is never run, pickles are never opened, nothing is downloaded.

    Raises
    ------
    ModelError
        If transformers cannot load it, or if a tensor is missing, unexpected or of another shape: it would run with
        random numbers in that place.
    MissingExtraError
        If the folder is quantized and compressed-tensors is not installed.
    """
    if not folder.is_dir():
        raise ModelError("is not a folder", where=str(folder), hint="give the folder of a Hugging Face model")
    with quiet(), decoded_experts(folder) as readable:
        try:
            config = read_config(readable)
            loaded: Any = model_class(config).from_pretrained(
                readable,
                dtype="auto",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported below, by name
                output_loading_info=True,
            )
        except ImportError as cause:
            raise MissingExtraError(
                f"transformers cannot load it ({cause})",
                where=str(folder),
                hint="install what it names with: pip install "
                + ("bitsandbytes" if "bitsandbytes" in str(cause) else "'prismaquant-cpp[eval]'"),
            ) from cause
        except Exception as cause:  # every error there is, depending on what is wrong with the folder
            raise _unusable("cannot load it", folder, cause) from cause
        model, info = loaded
        section = getattr(config, "quantization_config", None) or {}
        _check_keys(info, folder, cache_scales=bool(section.get("kv_cache_scheme")))
        try:
            if getattr(model, "is_loaded_in_4bit", False):
                model = model.dequantize()
            return _widened(model.eval())
        except Exception as cause:
            raise _unusable("loads it, but cannot run it", folder, cause) from cause


def _widened(model: PreTrainedModel) -> PreTrainedModel:
    with torch.no_grad():
        model(torch.zeros(1, 1, dtype=torch.int64), use_cache=False)
    # Module.to: PreTrainedModel.float refuses every model with a quantization config, decoded or not
    return torch.nn.Module.to(model, torch.float32)


def _unusable(what: str, folder: Path, cause: Exception) -> ModelError:
    message = f"transformers {what} ({type(cause).__name__}: {cause})"
    return ModelError(message, where=str(folder), hint="check the folder with verify")


def _check_keys(info: dict[str, Any], folder: Path, *, cache_scales: bool) -> None:
    """With ``cache_scales`` those of keys and values may be left over: see `prismaquant.evaluation.cache`."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        found = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info.get(kind) or ())
        if cache_scales:
            found = [name for name in found if not name.endswith((".k_scale", ".v_scale"))]
        if found:
            names = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
            raise ModelError(
                f"transformers reports {len(found)} {kind.replace('_', ' ')}: {names}",
                where=str(folder),
                hint="the weights do not fit config.json; check the folder with verify",
            )
