"""Rules about names: every Linear gets one scheme, under every name by which a reader may ask for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prismaquant.errors import ModelError
from prismaquant.exporting.cache_scales import SUFFIXES
from prismaquant.exporting.checks import rules
from prismaquant.exporting.checks.rules import is_quantized
from prismaquant.exporting.config import FILE as _CONFIG
from prismaquant.exporting.config import KEY as _ADDED
from prismaquant.exporting.config import with_dtype
from prismaquant.exporting.report import Check
from prismaquant.formats import BF16
from prismaquant.model.architectures import find_architecture, prefixes
from prismaquant.model.kept import group_siblings

if TYPE_CHECKING:
    from prismaquant.exporting.checks.folder import Folder
    from prismaquant.exporting.checks.resolution import Resolution
    from prismaquant.model import Architecture

__all__ = [
    "Layout",
    "UnitNames",
    "check_bystanders",
    "check_cache_scales",
    "check_config",
    "check_dead_targets",
    "check_fused_name",
    "check_siblings",
    "read_layout",
    "resolve_linear",
    "with_stored_units",
]

_HEAD = "lm_head"
_MOST_EXPERTS = 1_000_000
_MOST_LAYERS = 100_000  # a damaged number must not make us list names for ever


@dataclass(frozen=True, slots=True)
class UnitNames:
    """Name of a unit (the one vLLM uses for fused siblings) and of its Linears."""

    name: str
    linears: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The units that a model of some architecture has.

    ``experts`` has how many there are in the banks of each entry of the architecture; ``kv_heads`` are the heads of the
    keys and values, 0: not known.
    """

    architecture: Architecture
    units: tuple[UnitNames, ...]
    experts: Mapping[str, int]
    kv_heads: int = 0

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the Linears of all units."""
        return tuple(name for unit in self.units for name in unit.linears)


def read_layout(config: Mapping[str, Any], tensors: Iterable[str]) -> tuple[Layout | None, list[Check]]:
    """The modules that a model of ``config`` has, known from its architecture.

    Parameters
    ----------
    tensors
        Names of those of the model: which variant of a layer it has is seen from them.
    """
    try:
        architecture = find_architecture(config, _CONFIG)
    except ModelError as error:
        return None, [Check("config-json", _CONFIG, error.message)]
    config = architecture.text_config(config)
    layers = config.get("num_hidden_layers")
    if type(layers) is not int or not 0 < layers <= _MOST_LAYERS:
        return None, [Check("config-json", _CONFIG, f"num_hidden_layers is {layers!r}, expected 1 to {_MOST_LAYERS}")]
    units = []
    present = prefixes(tensors)
    try:
        counts = {entry.name: entry.experts(config, _CONFIG) for entry in architecture.units}
    except ModelError as error:
        return None, [Check("config-json", _CONFIG, error.message)]
    if layers * max(counts.values()) > _MOST_EXPERTS:
        return None, [Check("config-json", _CONFIG, f"{layers} layers of {max(counts.values())} experts: too many")]
    for layer in range(layers):
        prefix = f"{architecture.layers}.{layer}"
        for entry in architecture.of_layer(layer, present):
            names = tuple(f"{prefix}.{name}" for name in entry.names(counts[entry.name]))
            units.append(UnitNames(f"{prefix}.{entry.name}", names))
    heads = config.get("num_key_value_heads")
    return Layout(architecture, tuple(units), counts, heads if isinstance(heads, int) else 0), []


def with_stored_units(layout: Layout, folder: Folder, resolution: Resolution, planned: Iterable[str] = ()) -> Layout:
    """``layout`` and what else is a unit in ``folder``: what is ``planned``, or stored in quantized form by a group."""
    known = set(layout.linears)
    found = {name for name, parts in folder.parts.items() if any(map(is_quantized, parts.values()))}
    found = {name for name in found - known if resolution.groups_of(name) and not resolution.ignored(name)}
    more = group_siblings(found | (set(planned) - known), layout.architecture, layout.experts)
    return replace(layout, units=(*layout.units, *(UnitNames(name, linears) for name, linears, _ in more)))


def check_config(config: Mapping[str, Any], source: Mapping[str, Any]) -> Iterator[Check]:
    """Apart from the quantization, and the dtype that comes with it, the configuration is the source's."""
    if _ADDED in config:
        source = with_dtype(source)
    for key in sorted((config.keys() | source.keys()) - {_ADDED}):
        if key not in config:
            yield Check("source-config", f"{_CONFIG}: {key}", f"is missing, the source has {source[key]!r}")
        elif key not in source:
            yield Check("source-config", f"{_CONFIG}: {key}", f"is {config[key]!r}, the source has none")
        elif config[key] != source[key]:
            yield Check("source-config", f"{_CONFIG}: {key}", f"is {config[key]!r}, the source has {source[key]!r}")


def resolve_linear(resolution: Resolution, name: str, *, is_ours: bool = True) -> tuple[str | None, list[Check]]:
    """The scheme of the Linear ``name``: exactly one group has it, or the ignore list (then BF16).

    ``None`` if that is not so, or the group has no scheme that is known. This package never writes a name into both;
    others do, and every reader lets the ignore list win.
    """
    groups, ignored = resolution.groups_of(name), resolution.ignored(name)
    if ignored and not (groups and is_ours):
        return BF16, []
    if len(groups) == 1 and not ignored:
        return groups[0].scheme, []
    found = [group.name for group in groups] + (["ignore"] if ignored else [])
    text = f"is matched by {', '.join(found)}" if found else "is matched by no group and not ignored"
    return None, [Check("resolution", name, f"{text}; exactly one must match")]


def check_siblings(unit: UnitNames, schemes: Mapping[str, str | None]) -> Iterator[Check]:
    """The siblings of a unit have one scheme: engines fuse them and look only the first one up."""
    found = {name: schemes[name] for name in unit.linears}
    if len(set(found.values())) > 1 and None not in found.values():
        text = ", ".join(f"{name.rpartition('.')[2]} {scheme}" for name, scheme in found.items())
        yield Check("siblings", unit.name, f"its Linears have different schemes: {text}")


def check_fused_name(resolution: Resolution, unit: UnitNames) -> Iterator[Check]:
    """The fused name, where a target or the ignore list has it, gets what the siblings get.

    vLLM looks the fused name up first, and the siblings only where nothing matches it.
    """
    if unit.name in unit.linears:
        return
    siblings = {group.name for name in unit.linears for group in resolution.groups_of(name)}
    fused = {group.name for group in resolution.groups_of(unit.name)}
    if fused and fused != siblings:
        theirs = ", ".join(sorted(siblings)) or "none"
        yield Check("fused-name", unit.name, f"is matched by {', '.join(sorted(fused))}, its Linears by {theirs}")
    if siblings and resolution.ignored(unit.name):
        yield Check("fused-name", unit.name, "is ignored, its Linears are not")


def check_bystanders(resolution: Resolution, folder: Folder, layout: Layout) -> Iterator[Check]:
    """Head, embeddings and other matrices are not quantized, and those that are Linears are ignored."""
    linears = set(layout.linears)
    matrices = {
        module
        for module, parts in folder.parts.items()
        if module not in linears and "weight" in parts and len(parts["weight"].shape) == 2
    }
    if not any(name.endswith(_HEAD) for name in linears):
        matrices.add(_HEAD)  # a tied one has no tensor, but engines build it all the same
    for module in sorted(matrices):
        if groups := resolution.groups_of(module):
            yield Check("unquantized", module, f"is no part of a unit, but a target of {groups[0].name}")
        is_linear = module.endswith(_HEAD) or module.startswith(f"{layout.architecture.layers}.")
        if is_linear and not resolution.ignored(module):
            yield Check("unquantized", module, "is not quantized, but not in the ignore list")


def check_cache_scales(folder: Folder, layout: Layout) -> Iterator[Check]:
    """Where keys and values are quantized, their scales are stored, positive and finite."""
    if not folder.has_cache_scheme:
        return
    attentions = {name.rpartition(".")[0] for name in layout.linears if name.endswith(".k_proj")}
    names = [f"{name}.{suffix}" for name in sorted(attentions) for suffix in SUFFIXES]
    lacking = [name for name in names if name not in folder.tensors]
    for name in names:
        tensor = folder.tensors.get(name)
        if tensor is not None and tensor.dtype not in ("F32", "BF16", "F16"):
            yield Check("tensor-dtype", name, f"is {tensor.dtype}, expected F32")
        elif tensor is not None:
            yield from rules.check_scale(tensor, folder.read(tensor))
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        yield Check("cache-scale", f"{lacking[0]}{more}", "is missing; engines take 1, or fail", is_warning=True)


def check_dead_targets(resolution: Resolution, layout: Layout) -> Iterator[Check]:
    """Every target matches a Linear: one that matches nothing is a misspelt one."""
    names = [name for unit in layout.units for name in (unit.name, *unit.linears)]
    for group, target in resolution.dead_targets(names):
        where = f"{_CONFIG}: {_ADDED}.config_groups.{group.name}"
        yield Check("dead-target", where, f"{target!r} matches no Linear of the model")
