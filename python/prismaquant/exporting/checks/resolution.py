"""Which scheme a configuration gives to a module name, as compressed-tensors and vLLM look it up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prismaquant.exporting.report import Check
from prismaquant.exporting.schemes import group_arguments, quantized_schemes

__all__ = ["Group", "Resolution", "check_keys", "read_resolution"]

_WHERE = "config.json: quantization_config"
_GROUPS = "config_groups"
_GROUP_KEYS = {"targets", "weights", "input_activations", "output_activations", "format"}

#: What a missing key of the arguments means (compressed-tensors `QuantizationArgs`), and keys that no reader acts on.
_DEFAULTS: Mapping[str, Any] = {
    "num_bits": 8,
    "type": "int",
    "symmetric": True,
    "group_size": None,
    "strategy": None,
    "block_structure": None,
    "dynamic": False,
    "actorder": None,
    "scale_dtype": None,
    "zp_dtype": None,
}
_IGNORED = {"observer", "observer_kwargs"}

#: The class that takes every Linear. Alone it means the same to all readers.
_LINEAR = "Linear"

#: What engines accept for keys and values.
_CACHES = tuple(
    {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True, "dynamic": False}
    for strategy in ("tensor", "attn_head")
)


@dataclass(frozen=True, slots=True)
class Group:
    """One config group.

    Attributes
    ----------
    scheme
        What its arguments mean; ``None``: none we know.
    targets
        Names and ``re:`` expressions.
    of_class
        Whether it also takes every Linear that nothing else names: its target is the class.
    """

    name: str
    scheme: str | None
    targets: tuple[str, ...]
    of_class: bool = False


@dataclass(frozen=True, slots=True)
class Resolution:
    """Config groups and the ignore list."""

    groups: tuple[Group, ...]
    ignore: tuple[str, ...]

    def groups_of(self, name: str) -> tuple[Group, ...]:
        """Every group that has a target for the module ``name``; by its class only what nothing else names."""
        named = tuple(group for group in self.groups if any(_matches(target, name) for target in group.targets))
        if named or self.ignored(name) or _is_no_linear(name):
            return named
        return tuple(group for group in self.groups if group.of_class)

    def ignored(self, name: str) -> bool:
        """Whether the ignore list has the module ``name``; readers let it win over targets."""
        return any(_matches(pattern, name) for pattern in self.ignore)

    def dead_targets(self, names: list[str]) -> Iterator[tuple[Group, str]]:
        """Targets that match none of ``names``; those that are classes match what is not a name."""
        for group in self.groups:
            for target in group.targets:
                if not _is_class(target) and not any(_matches(target, name) for name in names):
                    yield group, target


def read_resolution(document: Any, *, is_ours: bool = True) -> tuple[Resolution, list[Check]]:
    """What ``document`` (the ``quantization_config``) says, and the rules that it breaks by itself.

    Parameters
    ----------
    is_ours
        Whether this package wrote it, and so every group has a scheme that it knows.
    """
    if not isinstance(document, Mapping):
        return Resolution((), ()), [Check("config-keys", _WHERE, "is not an object")]
    failures = list(check_keys(document))
    groups = []
    config_groups = document.get(_GROUPS)
    for name, entry in (config_groups if isinstance(config_groups, Mapping) else {}).items():
        group, broken = _read_group(name, entry, is_ours=is_ours, is_only=len(config_groups or ()) == 1)
        failures += broken
        if group is not None:
            groups.append(group)
    ignore = document.get("ignore")
    patterns, broken = _read_patterns(ignore if isinstance(ignore, list) else [], f"{_WHERE}.ignore")
    return Resolution(tuple(groups), patterns), failures + broken


def check_keys(document: Mapping[str, Any]) -> Iterator[Check]:
    """The top-level keys select the reader and the way it reads."""

    def wrong(key: str, expected: str) -> Check:
        return Check("config-keys", f"{_WHERE}.{key}", f"is {_short(document.get(key))}, expected {expected}")

    for key, value in (("quant_method", "compressed-tensors"), ("quantization_status", "compressed")):
        if document.get(key) != value:
            yield wrong(key, repr(value))
    groups = document.get(_GROUPS)
    if not isinstance(groups, Mapping) or not groups:
        yield wrong(_GROUPS, "an object of groups")
    else:
        formats = {str(entry.get("format")) for entry in groups.values() if isinstance(entry, Mapping)}
        accepted = [*(formats if len(formats) == 1 else ()), "mixed-precision"]
        if document.get("format") not in accepted:
            yield wrong("format", " or ".join(map(repr, accepted)))
    if not isinstance(document.get("ignore"), list):
        yield wrong("ignore", "a list")
    for key in ("sparsity_config", "transform_config"):
        if document.get(key):
            yield wrong(key, "none")
    cache = document.get("kv_cache_scheme")
    if cache and not any(_normal(cache) == _normal(known) for known in _CACHES):
        yield wrong("kv_cache_scheme", "none, or static FP8 per tensor or per head")


def _read_group(name: str, entry: Any, *, is_ours: bool, is_only: bool) -> tuple[Group | None, list[Check]]:
    where = f"{_WHERE}.{_GROUPS}.{name}"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("targets"), list) or not entry["targets"]:
        return None, [Check("config-group", where, "is not an object with a list of targets")]
    failures = []
    if unknown := sorted(entry.keys() - _GROUP_KEYS):
        failures.append(Check("config-group", where, f"has unknown keys {', '.join(unknown)}; readers refuse them"))
    scheme = _recognise(entry)
    if scheme is None:
        text = f"its arguments are none of {', '.join(quantized_schemes())}: {_short(entry)}"
        if not is_ours:
            text += "; its weights cannot be judged"
        failures.append(Check("unknown-scheme", where, text, is_warning=not is_ours))
    elif entry.get("format") != (stored := group_arguments(scheme).format):
        failures.append(
            Check("config-group", f"{where}.format", f"is {_short(entry.get('format'))}, {scheme} is {stored!r}")
        )
    targets, broken = _read_patterns(entry["targets"], f"{where}.targets")
    if is_only and targets == (_LINEAR,):
        return Group(name, scheme, (), of_class=True), failures + broken
    for target in targets:
        if _is_class(target):
            text = f"{target!r} is the name of a class: readers differ in whether it wins over other targets"
            broken.append(Check("class-target", f"{where}.targets", text))
    return Group(name, scheme, targets), failures + broken


def _read_patterns(entries: list[Any], where: str) -> tuple[tuple[str, ...], list[Check]]:
    """The entries that can be matched; the others as failures."""
    patterns, failures = [], []
    for entry in entries:
        try:
            if not isinstance(entry, str):
                raise TypeError("is not a text")
            if entry.startswith("re:"):
                re.compile(entry.removeprefix("re:"))
        except (TypeError, re.error, OverflowError, RecursionError) as cause:
            failures.append(Check("pattern", where, f"{_short(entry)} cannot be matched ({cause})"))
        else:
            patterns.append(entry)
    return tuple(patterns), failures


def _matches(pattern: str, name: str) -> bool:
    """A name, or ``re:`` and an expression that matches from the start, but not to the end, of the name."""
    if pattern.startswith("re:"):
        return re.match(pattern.removeprefix("re:"), name) is not None
    return pattern == name


def _is_no_linear(name: str) -> bool:
    """Whether the module is an embedding or a norm, which are of other classes."""
    last = name.rpartition(".")[2]
    return "embed" in last or "norm" in last


def _is_class(pattern: str) -> bool:
    return not pattern.startswith("re:") and "." not in pattern


def _recognise(entry: Mapping[str, Any]) -> str | None:
    """The scheme whose arguments the group ``entry`` has; those not written count as their defaults."""
    if entry.get("output_activations") is not None:
        return None
    for scheme in quantized_schemes():
        known = group_arguments(scheme)
        if _normal(entry.get("weights")) == _normal(known.weights) and _normal(
            entry.get("input_activations")
        ) == _normal(known.input_activations):
            return scheme
    return None


def _normal(arguments: Any) -> Any:
    if not isinstance(arguments, Mapping):
        return arguments
    normal = {
        key: value
        for key, value in arguments.items()
        if key not in _IGNORED and not (key in _DEFAULTS and value == _DEFAULTS[key])
    }
    if normal.get("symmetric", True):
        normal.pop("zp_dtype", None)  # there are no zero points
    if isinstance(dtype := normal.get("scale_dtype"), str):
        normal["scale_dtype"] = dtype.removeprefix("torch.")
    return normal


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
