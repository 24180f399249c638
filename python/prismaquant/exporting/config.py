"""``config.json`` of the folder: the source's, with a ``quantization_config`` that every reader resolves alike.

Readers look a layer up under different names: transformers by its own name, vLLM by a name with another prefix and with
q/k/v or gate/up fused into one, older vLLM in another order. So targets are anchored regular expressions that match all
of these names, groups share no name, and every layer that is not quantized is listed in ``ignore``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from prismaquant.exporting import schemes
from prismaquant.formats import BF16
from prismaquant.model.reasons import WRAPPERS, without_wrappers

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan, PlannedUnit
    from prismaquant.model import Model

__all__ = [
    "COMPRESSED_TENSORS",
    "DTYPE",
    "DTYPE_KEYS",
    "FILE",
    "KEY",
    "config_groups",
    "config_json",
    "ignored_names",
    "quantization_config",
    "with_dtype",
]

FILE = "config.json"

#: Key of the section.
KEY = "quantization_config"

#: Release of compressed-tensors whose layout is written. Informative: no reader acts on it.
COMPRESSED_TENSORS = "0.17.0"

#: The dtype of a quantized folder, and the names that transformers has given to that field.
DTYPE = "bfloat16"
DTYPE_KEYS = ("dtype", "torch_dtype")

_WRAPPED = "|".join(f"{part}[.]" for part in WRAPPERS)

#: In the place of a name: the number of any expert.
_NUMBER = "#"

#: In the place of a name: the numbers of all layers.
_NUMBERS = "##"

#: Of an expert, in vLLM.
_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")

#: What is before the layer number, what is after it but for the last part, the last parts -> numbers of the layers.
#: Without a number, the parts are those of the whole name.
_Kinds: TypeAlias = dict[tuple[str, str, tuple[str, ...]], set[int]]


def config_json(model: Model, plan: Plan, kv_cache_scheme: Mapping[str, Any] | None = None) -> bytes:
    """The file: every key of the source in its order, then the section (none where all units are BF16).

    The dtype becomes bfloat16 whatever the source's was: compressed-tensors decodes NVFP4 to bfloat16 only, and a model
    loaded in the dtype of its config would then multiply two dtypes.
    """
    section = quantization_config(model, plan.units, kv_cache_scheme)
    if section is None:
        return (model.path / FILE).read_bytes()
    document = {**with_dtype(model.config), KEY: section}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def with_dtype(config: Mapping[str, Any], dtype: str = DTYPE) -> dict[str, Any]:
    """``config`` with ``dtype`` wherever it has one: for the whole, and for a tower."""
    return {
        key: dtype if key in DTYPE_KEYS else with_dtype(value, dtype) if isinstance(value, Mapping) else value
        for key, value in config.items()
    }


def quantization_config(
    model: Model, units: Sequence[PlannedUnit], kv_cache_scheme: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """What readers need to know of ``model`` if its ``units`` are as planned; ``None`` if nothing is quantized."""
    groups = config_groups(units)
    if not groups:
        return None
    formats = {group["format"] for group in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "version": COMPRESSED_TENSORS,
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "sparsity_config": {},
        "transform_config": {},
        "kv_cache_scheme": kv_cache_scheme,
        "config_groups": groups,
        "ignore": [
            *ignored_names(units),
            *_other_names(model),
            *(f"re:^(?:{_WRAPPED})*{re.escape(name)}(?:[.].*)?$" for name in model.outside),
        ],
    }


def config_groups(units: Sequence[PlannedUnit]) -> dict[str, dict[str, Any]]:
    """One group per scheme that is used, by its name."""
    targets = {scheme: _unit_names(units, scheme) for scheme in schemes.quantized_schemes()}
    used = [(scheme, found) for scheme, found in targets.items() if found]
    # Two digits: some readers sort the names, and group_10 would come before group_2.
    return {f"group_{number:02d}": _group(scheme, found) for number, (scheme, found) in enumerate(used)}


def ignored_names(units: Sequence[PlannedUnit]) -> list[str]:
    """What is ignored in every model: the head, unless it is a unit, and units that stay in BF16."""
    head = [] if any(unit.name.endswith("lm_head") for unit in units) else ["re:.*lm_head$"]
    return [*head, *_unit_names(units, BF16)]


def _group(scheme: str, targets: list[str]) -> dict[str, Any]:
    arguments = schemes.group_arguments(scheme)
    return {
        "format": arguments.format,
        "targets": targets,
        "weights": dict(arguments.weights),
        "input_activations": None if arguments.input_activations is None else dict(arguments.input_activations),
        "output_activations": None,
    }


def _unit_names(units: Sequence[PlannedUnit], scheme: str) -> list[str]:
    """One expression per kind of unit that has ``scheme`` in some layer."""
    kinds: _Kinds = {}
    for unit in units:
        if unit.scheme == scheme:
            # A fused unit is also called by its own name, the one under which vLLM knows it. As a target that of a bank
            # would meet a module that is no Linear.
            names = [unit.name] if not unit.is_bank or scheme == BF16 else []
            # vLLM looks a bank up under these names, whatever its Linears are called.
            names += [f"{unit.name}.0.{name}" for name in _PROJECTIONS] if unit.is_bank else []
            _add(kinds, unit.layer, dict.fromkeys([*unit.linears, *names]), is_bank=unit.is_bank)
    return [_expression(*kind, layers) for kind, layers in kinds.items()]


def _other_names(model: Model) -> list[str]:
    """The same for weights that a reader may take for a Linear though no unit has them: matrices inside the layers."""
    kinds: _Kinds = {}
    for name in model.unlisted:
        match = re.match(rf"{re.escape(model.architecture.layers)}[.]([0-9]+)[.].", name)
        if match:
            _add(kinds, int(match[1]), [name.rpartition(".")[0]])
    return [_expression(*kind, layers) for kind, layers in kinds.items()]


def _add(kinds: _Kinds, layer: int | None, names: Iterable[str], *, is_bank: bool = False) -> None:
    """File ``names``, which lie in ``layer`` and belong together, under what they have in common with other layers.

    In a bank the numbers of the experts become `_NUMBER`: names one by one make readers slow.
    """
    projections: dict[tuple[str, str], list[str]] = {}
    for name in names:
        prefix, place = _split(name, layer)
        parent, _, projection = place.rpartition(".")
        if is_bank:
            parent = ".".join(_NUMBER if part.isdecimal() else part for part in parent.split("."))
        projections.setdefault((prefix, parent), []).append(projection)
    for (prefix, parent), found in projections.items():
        layers = kinds.setdefault((prefix, parent, tuple(dict.fromkeys(found))), set())
        if layer is not None:
            layers.add(layer)


def _part(part: str) -> str:
    if part == "self_attn":  # vLLM's gpt-oss has it without the first word
        return "(?:self_)?attn"
    return "[0-9]+" if part == _NUMBER else re.escape(part)


def _split(name: str, layer: int | None) -> tuple[str, str]:
    """``model.layers``, ``mlp.up_proj`` from ``model.layers.3.mlp.up_proj``; nothing and all of it without a layer."""
    if layer is None:
        return "", name
    prefix, _, place = name.partition(f".{layer}.")
    return prefix, place


def _expression(prefix: str, parent: str, projections: tuple[str, ...], layers: set[int]) -> str:
    """Anchored at both ends; free only in how often and in which order the parts around the model stand.

    Examples
    --------
    >>> _expression("model.layers", "self_attn", ("q_proj", "qkv_proj"), {1, 0})
    're:^(?:model[.]|language_model[.])+layers[.](?:0|1)[.](?:self_)?attn[.](?:q_proj|qkv_proj)$'
    >>> _expression("", "model.visual.merger", ("linear_fc1",), set())
    're:^(?:model[.]|language_model[.])*visual[.]merger[.]linear_fc1$'
    """
    numbers = "|".join(str(layer) for layer in sorted(layers))
    path = without_wrappers(f"{prefix}.{_NUMBERS}.{parent}" if layers else parent)
    place = "".join(f"(?:{numbers})[.]" if part == _NUMBERS else f"{_part(part)}[.]" for part in path if part)
    names = "|".join(re.escape(projection) for projection in projections)
    names = f"(?:{names})" if len(projections) > 1 else names
    often = "+" if path[:1] == ["layers"] else "*"  # layers of anything else are not meant
    return f"re:^(?:{_WRAPPED}){often}{place}{names}$"
