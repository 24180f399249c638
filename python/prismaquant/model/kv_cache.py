"""What a decoder layer keeps of the tokens before: keys and values, a window of them, a latent, or a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prismaquant.errors import ModelError
from prismaquant.model.architectures import Architecture

__all__ = ["LayerCache", "layer_caches", "longest_context", "scaled_layers"]

Kind = Literal["full", "sliding", "latent", "recurrent"]

_STATE_BYTES = 4  # of an element of a recurrent state, float32 as transformers computes it
_CONVOLUTION_BYTES = 2  # of an element of the inputs that its convolution keeps, the dtype of the model


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What one decoder layer keeps.

    Attributes
    ----------
    kind
        ``"full"``: keys and values of every token. ``"sliding"``: of the last ``window`` tokens. ``"latent"``: one
        vector per token that all heads share (MLA, DeepSeek-V2 paper, section 2.1). ``"recurrent"``: a state of one
        size (linear attention).
    elements
        Per token; 0 for a state.
    heads
        Heads of keys and values, which tensor parallelism divides; 1 for a latent, which every device keeps whole.
    window
        Tokens of a sliding window.
    state_bytes
        Per sequence, of a recurrent state.
    """

    kind: Kind
    elements: int = 0
    heads: int = 1
    window: int = 0
    state_bytes: int = 0


def longest_context(config: Mapping[str, Any]) -> int | None:
    """``max_position_embeddings``: the tokens that the model was made for; ``None`` if its config does not say."""
    found = config.get("max_position_embeddings")
    return found if type(found) is int and found > 0 else None


def scaled_layers(caches: Sequence[LayerCache]) -> tuple[int, ...]:
    """Indices of the layers whose keys and values get scales where they are kept in FP8: not latents or states."""
    return tuple(layer for layer, cache in enumerate(caches) if cache.kind in ("full", "sliding"))


def layer_caches(
    config: Mapping[str, Any], architecture: Architecture, num_layers: int, where: str
) -> tuple[LayerCache, ...]:
    """What each of the decoder layers of the model that ``config`` (of the file ``where``) describes keeps.

    Raises
    ------
    ModelError
        A number is missing, or a type of layer is not known.
    """

    def number(name: str, default: int | None = None) -> int:
        found = config.get(name)
        if found is None:
            found = default
        if type(found) is not int or found <= 0:
            raise ModelError(
                f"{name} is {found!r}, expected a positive number: the size of the KV cache depends on it",
                where=where,
                hint="download config.json again",
            )
        return found

    def attention(window: int | None) -> LayerCache:
        if config.get("kv_lora_rank") is not None:
            return LayerCache("latent", number("kv_lora_rank") + number("qk_rope_head_dim"))
        heads = number("num_key_value_heads", config.get("num_attention_heads"))
        size = config.get("head_dim") or number("hidden_size") // number("num_attention_heads")
        elements = 2 * heads * size
        return LayerCache("full", elements, heads) if window is None else LayerCache("sliding", elements, heads, window)

    def recurrent() -> LayerCache:
        key_heads, value_heads = number("linear_num_key_heads"), number("linear_num_value_heads")
        key_size, value_size = number("linear_key_head_dim"), number("linear_value_head_dim")
        channels = 2 * key_heads * key_size + value_heads * value_size
        kept = channels * (number("linear_conv_kernel_dim") - 1)
        state = value_heads * key_size * value_size
        return LayerCache("recurrent", state_bytes=kept * _CONVOLUTION_BYTES + state * _STATE_BYTES, heads=key_heads)

    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    found = []
    for layer in range(num_layers):
        kind = _layer_type(config, architecture, layer)
        if kind == "full_attention":
            found.append(attention(None))
        elif kind == "sliding_attention":
            found.append(attention(None if window is None else number("sliding_window")))
        elif kind == "linear_attention":
            found.append(recurrent())
        else:
            raise ModelError(
                f"layer {layer} is of the type {kind!r}, whose KV cache is not known",
                where=where,
                hint="known: full_attention, sliding_attention, linear_attention",
            )
    return tuple(found)


def _layer_type(config: Mapping[str, Any], architecture: Architecture, layer: int) -> object:
    """As the config says; older ones leave it to the architecture (and Qwen's to ``max_window_layers``)."""
    named = config.get("layer_types")
    if isinstance(named, list) and layer < len(named):
        return named[layer]
    last_full = config.get("max_window_layers")
    if isinstance(last_full, int) and layer < last_full:
        return "full_attention"
    return architecture.layer_types[layer % len(architecture.layer_types)]
