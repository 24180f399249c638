"""Random models of two layers, written as a user's folder: `build`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

__all__ = ["ARCHITECTURES", "MIXTURES", "MULTIMODAL", "add_further_layer", "build"]

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "qwen3_5_text")
MIXTURES = ("qwen3_moe", "deepseek_v3", "qwen3_next", "mixtral", "gpt_oss", "qwen3_5_moe_text")

#: Models that also see -> their class.
MULTIMODAL = {
    "gemma3": "Gemma3ForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
}

_BUNDLED = Path(__file__).parents[3] / "examples" / "models" / "tiny-llama"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 256,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,  # with the usual 0.02 so small a model says nearly nothing
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
_LINEAR_ATTENTION: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_SHARED_EXPERT: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
_ROPE_OF_THREE_AXES: dict[str, Any] = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "depth": 1,
    "num_attention_heads": 2,
    "num_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "out_hidden_size": 64,
    "vision_use_head": False,
}
_VISION_EXTRA: dict[str, dict[str, Any]] = {"qwen3_vl": {"deepstack_visual_indexes": [0]}}
_IMAGE: dict[str, Any] = {"image_token_id": 5, "video_token_id": 6, "mm_tokens_per_image": 4}
_EXTRA: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True},
    "deepseek_v3": {
        "topk_method": "noaux_tc",  # only vLLM looks at it
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "n_shared_experts": 1,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "num_key_value_heads": 4,
    },
    "qwen3_next": {**_LINEAR_ATTENTION, **_SHARED_EXPERT},
    "qwen3_5": _LINEAR_ATTENTION,
    "qwen3_5_text": _LINEAR_ATTENTION,
    "qwen3_5_moe_text": {**_LINEAR_ATTENTION, **_SHARED_EXPERT},
    "qwen3_5_moe": {**_LINEAR_ATTENTION, **_SHARED_EXPERT},
    "qwen2_5_vl": _ROPE_OF_THREE_AXES,
    "qwen3_vl": _ROPE_OF_THREE_AXES,
    "gpt_oss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "intermediate_size": 64,
        "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "mistral": {"sliding_window": 32},
    "gemma3_text": {
        "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 16,
        "tie_word_embeddings": True,
    },
}
_EXTRA["gemma3"] = _EXTRA["gemma3_text"]


def build(
    architecture: str,
    folder: Path,
    *,
    seed: int = 0,
    dtype: str = "bfloat16",
    max_shard_size: int | str = "50GB",
    tokenizer: bool = False,
    vision: dict[str, Any] | None = None,
    **config_overrides: Any,
) -> Path:
    """Write a random model of ``architecture`` (a ``model_type``) into ``folder`` and return the folder.

    Weights, norms and biases are all random, the same for the same ``seed``; the caller's random state stays.
    ``vision`` overrides fields of a vision tower.
    ``tokenizer`` adds the tokenizer of the bundled model, and a vocabulary of 4096 to go with it. Everything else
    overrides fields of the configuration; ``layer_types`` has to follow ``num_hidden_layers`` by hand.
    """
    config = {**_CONFIG, **_EXTRA.get(architecture, {}), **({"vocab_size": 4096} if tokenizer else {})}
    config |= config_overrides
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (
            _multimodal(architecture, config, vision or {})
            if architecture in MULTIMODAL
            else _text(architecture, config)
        )
        with torch.no_grad():
            for parameter in model.parameters():
                # Norms are all ones, biases and Gemma's projection of images all zeros, which would hide mistakes.
                if parameter.ndim == 1 or not parameter.any():
                    parameter.add_(0.1 * torch.randn_like(parameter))
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
    if tokenizer:
        for name in _TOKENIZER:
            shutil.copyfile(_BUNDLED / name, folder / name)
    return folder


def add_further_layer(folder: Path) -> list[str]:
    """Give the folder of a model of one shard the tensors of a layer that predicts further tokens; their names."""
    file, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    text, tensors = config.get("text_config", config), load_file(file)
    random = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return (0.1 * torch.randn(*shape, generator=random)).to(torch.bfloat16)

    if config["model_type"] == "deepseek_v3":
        text["num_nextn_predict_layers"] = 1
        block, projection = "model.layers.2.", "model.layers.2.eh_proj"
        norms = [f"{block}{name}" for name in ("enorm", "hnorm", "shared_head.norm")]
    else:
        text["mtp_num_hidden_layers"] = 1
        block, projection = "mtp.layers.0.", "mtp.fc"
        norms = [f"mtp.{name}" for name in ("norm", "pre_fc_norm_hidden", "pre_fc_norm_embedding")]
    (folder / "config.json").write_text(json.dumps(config))
    further = {
        block + name.partition("layers.1.")[2]: tensor + noise(*tensor.shape)
        for name, tensor in sorted(tensors.items())
        if "layers.1." in name and "visual" not in name
    }
    further[f"{projection}.weight"] = noise(64, 128)
    further |= {f"{norm}.weight": 1 + noise(64) for norm in norms}
    save_file({**tensors, **further}, file, {"format": "pt"})
    return sorted(further)


def _text(architecture: str, config: dict[str, Any]) -> Any:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **config))


def _multimodal(architecture: str, config: dict[str, Any], overrides: dict[str, Any]) -> Any:
    published = AutoConfig.for_model(architecture)
    extra = _VISION_EXTRA.get(architecture, {})
    vision = {**_VISION, **extra, **overrides, "model_type": published.vision_config.model_type}
    text = {**config, "model_type": published.text_config.model_type}
    # One field is looked for at the top.
    tied = {"tie_word_embeddings": config["tie_word_embeddings"]}
    whole = AutoConfig.for_model(architecture, text_config=text, vision_config=vision, **tied, **_IMAGE)
    return getattr(transformers, MULTIMODAL[architecture])._from_config(whole)
