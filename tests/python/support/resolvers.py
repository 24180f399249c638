"""Which config group a layer gets, as each reader decides it: three small models of other programs' rules.

* `compressed_tensors`: modules by their names in transformers, unfused; exact names first, then expressions in
  alphabetical order, then classes.
* `vllm_old` (before mid-2026): fused names; in the order of the file by name, then by a part of the class name, then by
  the names of the fused layer's shards. A layer that nothing matches is an error.
* `vllm_new`: the same with the last two steps exchanged, and without that error.

Each returns the name of the group, or ``None`` for a layer that stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

__all__ = ["FUSED", "compressed_tensors", "vllm_new", "vllm_old"]

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def compressed_tensors(section: dict[str, Any], name: str, kind: str = "Linear") -> str | None:
    groups = _groups(section)
    if any(_matches(name, entry) or entry == kind for entry in section["ignore"]):
        return None
    in_order = sorted(groups, key=lambda target: (target.startswith("re:"), target))
    found = _first(name, in_order) or (kind if kind in groups else None)
    return groups[found] if found else None


def vllm_old(section: dict[str, Any], name: str, kind: str) -> str | None:
    groups = _groups(section)
    if _ignored(section["ignore"], name):
        return None
    found = _first(name, groups) or _by_class(kind, groups) or _by_shards(name, groups)
    if found is None:
        raise LookupError(f"Unable to find matching target for {name}")
    return groups[found]


def vllm_new(section: dict[str, Any], name: str, kind: str) -> str | None:
    groups = _groups(section)
    if _ignored(section["ignore"], name):
        return None
    found = _first(name, groups) or _by_shards(name, groups) or _by_class(kind, groups)
    return groups[found] if found else None


def _groups(section: dict[str, Any]) -> dict[str, str]:
    """Target -> group, in the order of the file."""
    return {target: group for group, entry in section["config_groups"].items() for target in entry["targets"]}


def _matches(name: str, target: str) -> bool:
    # re.match: anchored at the start only
    return re.match(target[3:], name) is not None if target.startswith("re:") else target == name


def _first(name: str, targets: Iterable[str]) -> str | None:
    return next((target for target in targets if _matches(name, target)), None)


def _by_class(kind: str, targets: Iterable[str]) -> str | None:
    return next((target for target in targets if not target.startswith("re:") and target.lower() in kind.lower()), None)


def _shards(name: str) -> list[str]:
    """Names of the layers that were fused into ``name``."""
    parent, _, last = name.rpartition(".")
    return [f"{parent}.{shard}" for shard in FUSED.get(last, ())]


def _by_shards(name: str, targets: Iterable[str]) -> str | None:
    found = [_first(shard, targets) for shard in _shards(name)]
    return found[0] if found and all(found) else None


def _ignored(ignore: Iterable[str], name: str) -> bool:
    shards = _shards(name)
    if not shards or name in ignore:
        return _first(name, ignore) is not None
    found = {_first(shard, ignore) is not None for shard in shards}
    if len(found) > 1:
        raise ValueError(f"Found different quantization schemes for the shards of {name}")
    return found.pop()
