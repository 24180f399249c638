"""Serving: how much of a device the weights may take beside the KV cache and the engine, and what a plan takes of it.

Sizes are those of vLLM: it takes a share of each device, allocates the KV cache in blocks of tokens, and keeps of a
sliding window also the tokens of the step that it computes. What its activations take is an estimate: two hidden states
and the widest fused output of a layer for every token of a step, and the logits of every sequence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prismaquant.errors import ArgumentError, ModelError
from prismaquant.facts import CacheDtype, Device, Engine, find_cache, find_device, find_engine
from prismaquant.files.plan import CacheShare, Footprint
from prismaquant.model.kv_cache import LayerCache, layer_caches, longest_context, scaled_layers
from prismaquant.quantity import parse_bytes

if TYPE_CHECKING:
    from prismaquant.model import Model, Unit

__all__ = [
    "Serving",
    "active_share",
    "cache_scale_bytes",
    "device_bytes",
    "footprint",
    "for_units",
    "parse_context",
    "passthrough_bytes",
    "read_per_token",
    "serving_of",
]

#: Parts of the names of tensors that are divided among devices although they are in no unit.
_DIVIDED = ("embed", "lm_head", ".experts.")


@dataclass(frozen=True, slots=True)
class Serving:
    """What a plan is to be served with.

    Attributes
    ----------
    context
        Tokens of one sequence; 0: not known.
    kv
        How keys and values are kept.
    concurrency
        Sequences of that length at the same time.
    tensor_parallel
        Devices that share the model.
    memory
        Bytes of one of them; ``None``: any.
    reserve
        Bytes of one that neither weights nor KV cache may take; ``None``: an estimate of the activations.
    device
        If it was named.
    engine
        Whose sizes count.
    """

    context: int
    kv: CacheDtype
    concurrency: int
    tensor_parallel: int
    memory: int | None
    reserve: int | None
    device: Device | None
    engine: Engine

    @property
    def usable(self) -> int | None:
        """Bytes of one device that the engine takes by default."""
        return None if self.memory is None else math.floor(self.memory * self.engine.memory_utilization)


def parse_context(text: int | str) -> int:
    """Tokens in ``text``: a number, or one with ``k`` (1024) or ``M`` (1024 k).

    Raises
    ------
    ArgumentError
        It is none.

    Examples
    --------
    >>> parse_context("32k")
    32768
    """
    match = re.fullmatch(r"\s*([0-9]+)\s*([kKmM]?)\s*", str(text))
    tokens = int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()] if match else 0
    if tokens <= 0:
        raise ArgumentError(f"context is {text!r}, expected a number of tokens", hint="for example 8192 or 32k")
    return tokens


def serving_of(
    model: Model,
    *,
    fit: int | str | None = None,
    context: int | str | None = None,
    kv: str = "auto",
    concurrency: int = 1,
    tensor_parallel: int = 1,
    reserve: int | str | None = None,
    target_device: str | None = None,
) -> Serving:
    """How ``model`` is to be served.

    Parameters
    ----------
    fit
        Memory of one device: bytes, a text such as ``"24GiB"``, or the name of a device.
    context
        Tokens of one sequence (``"32k"``); by default as many as the model was made for.
    reserve
        Bytes of one device that neither weights nor KV cache may take, instead of the estimate.

    Raises
    ------
    ArgumentError
        An unknown device or KV dtype, a context that is none or longer than the model's, a number below 1.
    """
    for name, value in (("concurrency", concurrency), ("tensor_parallel", tensor_parallel)):
        if value < 1:
            raise ArgumentError(f"{name} is {value}, expected at least 1")
    device = None if target_device is None else find_device(target_device)
    memory = None
    if fit is not None:
        if isinstance(fit, str) and not re.match(r"\s*[0-9.]+\s*[kKmMgGtT]?[iI]?[bB]?\s*$", fit):
            device = find_device(fit)
            memory = device.memory
            if memory is None:
                raise ArgumentError(f"fit is {fit!r}, which is a family of devices", hint="name a device or its memory")
        else:
            memory = parse_bytes(fit)
            if memory <= 0:
                raise ArgumentError(f"fit is {fit}, expected the memory of a device", hint="for example 24GiB")
    longest = longest_context(model.text_config)
    tokens = (longest or 0) if context is None else parse_context(context)
    if context is not None and longest is not None and tokens > longest:
        raise ArgumentError(f"context is {tokens} tokens", hint=f"the model was made for up to {longest}")
    if fit is not None and tokens == 0:
        raise ArgumentError("the model does not say how many tokens it was made for", hint="give context")
    return Serving(
        context=tokens,
        kv=find_cache(kv),
        concurrency=concurrency,
        tensor_parallel=tensor_parallel,
        memory=memory,
        reserve=None if reserve is None else parse_bytes(reserve),
        device=device,
        engine=find_engine(),
    )


def footprint(model: Model, chosen: Mapping[str, int], serving: Serving) -> Footprint:
    """What one device holds and reads if the stored bytes of each unit are ``chosen``.

    Raises
    ------
    ModelError
        The memory of a device is given, and the config does not say how large the KV cache is.
    """
    resident = passthrough_bytes(model, serving.tensor_parallel) + sum(
        device_bytes(model, unit, chosen[unit.name], serving.tensor_parallel) for unit in model.units
    )
    try:
        cache = _cache_shares(model, serving) if serving.context else ()
    except ModelError:
        if serving.memory is not None:
            raise
        cache = ()
    activations = _reserved(model, serving)
    kept = sum(share.bytes for share in cache)
    usable = serving.usable
    return Footprint(
        resident=resident,
        read_per_token=read_per_token(model, chosen),
        context=serving.context if cache else 0,
        concurrency=serving.concurrency,
        kv=serving.kv.name,
        cache=cache,
        activations=activations,
        tensor_parallel=serving.tensor_parallel,
        memory=serving.memory,
        bandwidth=serving.device.bandwidth if serving.device else None,
        left=None if usable is None else usable - resident - kept - activations,
    )


def for_units(model: Model, serving: Serving) -> int:
    """Bytes of one device that are left for the units; negative if the rest alone does not fit."""
    assert serving.usable is not None
    kept = sum(share.bytes for share in _cache_shares(model, serving))
    return serving.usable - kept - _reserved(model, serving) - passthrough_bytes(model, serving.tensor_parallel)


def device_bytes(model: Model, unit: Unit, stored: int, tensor_parallel: int) -> int:
    """Bytes that one of ``tensor_parallel`` devices holds of a unit that takes ``stored``: its share, or all of it."""
    place = unit.name.split(f".{unit.layer}.", 1)[-1]
    return stored if place in model.architecture.replicated else -(-stored // tensor_parallel)


def passthrough_bytes(model: Model, tensor_parallel: int = 1) -> int:
    """Bytes of everything that is no unit on one device: embeddings, head and experts are divided, the rest is not."""
    total = 0
    for name in model.passthrough:
        size = model.tensors[name].nbytes
        total += -(-size // tensor_parallel) if any(part in name for part in _DIVIDED) else size
    return total


def cache_scale_bytes(model: Model, serving: Serving | None) -> int:
    """Bytes that the scales of keys and values take in a folder for ``serving``."""
    if serving is None or serving.kv.name != "fp8":
        return 0
    caches = layer_caches(model.text_config, model.architecture, model.num_layers, f"{model.path / 'config.json'}")
    return 2 * 4 * len(scaled_layers(caches))


def active_share(model: Model, unit: Unit) -> tuple[int, int]:
    """Share of the unit that one token uses, as a fraction: its chosen experts of all of them."""
    names = ("num_experts_per_tok", "experts_per_token")
    chosen = next((model.text_config[name] for name in names if name in model.text_config), 0)
    if not unit.experts or type(chosen) is not int or not 0 < chosen <= unit.experts:
        return (1, 1)
    return (chosen, unit.experts)


def read_per_token(model: Model, chosen: Mapping[str, int]) -> int:
    """Bytes of weights that decoding one token of one sequence reads, of experts as many as are expected.

    Of an embedding that is no head at the same time it is one row; that, and the KV cache, are not counted.
    """
    total = 0
    for unit in model.units:
        part, whole = active_share(model, unit)
        total += -(-chosen[unit.name] * part // whole)
    for name in model.passthrough:
        if model.is_tied or "embed" not in name:
            total += model.tensors[name].nbytes
    return total


def _cache_shares(model: Model, serving: Serving) -> tuple[CacheShare, ...]:
    where = f"{model.path / 'config.json'}"
    totals: dict[str, list[int]] = {}
    for layer in layer_caches(model.text_config, model.architecture, model.num_layers, where):
        found = totals.setdefault(layer.kind, [0, 0])
        found[0] += 1
        found[1] += _layer_bytes(layer, serving) * serving.concurrency
    return tuple(CacheShare(kind, layers, size) for kind, (layers, size) in totals.items())


def _layer_bytes(layer: LayerCache, serving: Serving) -> int:
    """Of one sequence on one device."""
    heads_here = -(-layer.heads // serving.tensor_parallel)  # at least one: heads are copied where they are too few
    if layer.kind == "recurrent":
        return -(-layer.state_bytes * heads_here // layer.heads)
    tokens = serving.context
    if layer.kind == "sliding":
        tokens = min(tokens, layer.window - 1 + _step(serving)[0])
    block = serving.engine.cache_block
    bits = -(-tokens // block) * block * layer.elements * heads_here // layer.heads * serving.kv.bits
    return math.ceil(bits / 8)


def _reserved(model: Model, serving: Serving) -> int:
    if serving.reserve is not None:
        return serving.reserve
    batched_tokens, sequences = _step(serving)
    hidden = model.text_config.get("hidden_size")
    vocabulary = model.text_config.get("vocab_size")
    widest = max((_fused_rows(unit) for unit in model.units), default=0)
    per_token = 2 * (2 * (hidden if isinstance(hidden, int) else 0) + widest)
    logits = 4 * (vocabulary if isinstance(vocabulary, int) else 0)
    tokens = min(batched_tokens, serving.context * serving.concurrency)
    return (tokens * per_token + min(sequences, tokens) * logits) // serving.tensor_parallel


def _fused_rows(unit: Unit) -> int:
    return sum(linear.rows for linear in (unit.linears[:2] if unit.experts else unit.linears))


def _step(serving: Serving) -> tuple[int, int]:
    """Most tokens and sequences of one step of the engine; where the device is not known, of a large one."""
    engine = serving.engine
    kind = 1 if serving.memory is None or serving.memory >= engine.large_device else 0
    return engine.batched_tokens[kind], engine.sequences[kind]
