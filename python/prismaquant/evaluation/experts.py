"""Experts of quantized models: decoded and packed in a folder of their own, which transformers can load.

transformers 5 packs the tensors of single experts into one parameter. Those in NVFP4 it reads without their global
scale, and a model whose layers have experts in different schemes, or in none, not at all. Engines load all of them.

Their inputs are not quantized then: see `expert_inputs`.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from prismaquant.codec import Quantized, get_codec
from prismaquant.codec.storage import stored
from prismaquant.errors import ModelError, ShapeError
from prismaquant.formats import get_scheme, list_schemes
from prismaquant.model.architectures import Architecture, find_architecture

__all__ = ["CONFIG", "SECTION", "decoded_experts", "matches"]

CONFIG = "config.json"
#: Key of the quantization section in it.
SECTION = "quantization_config"

_INDEX = "model.safetensors.index.json"

_EXPERTS = "experts.safetensors"

_FORMATS = tuple(dict.fromkeys(get_scheme(scheme).weight_format for scheme in list_schemes()))


@contextmanager
def decoded_experts(folder: Path) -> Iterator[Path]:
    """``folder``, or of a quantized model with experts a copy in which these are in bfloat16; deleted afterwards.

    Raises
    ------
    ModelError
        A part of an expert is missing.
    """
    files = sorted(folder.glob("*.safetensors"))
    architecture = _architecture(folder)
    banks = None if architecture is None else _banks(architecture)
    if architecture is None or banks is None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for path in folder.iterdir():
            if path.is_file() and path.suffix != ".safetensors" and path.name not in (CONFIG, _INDEX):
                shutil.copyfile(path, copy / path.name)
        places: dict[str, str] = {}
        for file in files:
            with safe_open(file, framework="pt") as opened:
                places.update(dict.fromkeys(opened.keys(), file.name))
        weight_map = {}
        experts: dict[str, torch.Tensor] = {}
        for file in files:
            tensors = _decode(folder, file, places, banks)
            for key in [key for key in tensors if banks.fullmatch(key.removesuffix(".weight"))]:
                experts[key.removesuffix(".weight")] = tensors.pop(key)
            weight_map.update(dict.fromkeys(tensors, file.name))
            save_file(tensors, copy / file.name, {"format": "pt"})
        packed = _pack(folder, architecture, experts)
        weight_map.update(dict.fromkeys(packed, _EXPERTS))
        save_file(packed, copy / _EXPERTS, {"format": "pt"})
        (copy / _INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        config = json.loads((folder / CONFIG).read_bytes())
        (copy / CONFIG).write_text(json.dumps(_without(config, sorted(places), banks)))
        yield copy


def _architecture(folder: Path) -> Architecture | None:
    """That of the quantized model in ``folder``; ``None`` if it is not quantized, or none that we know."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        return find_architecture(config, str(folder / CONFIG)) if config.get(SECTION) else None
    except (ModelError, OSError, ValueError):
        return None


def _banks(architecture: Architecture) -> re.Pattern[str] | None:
    """An expression for the Linears of experts; ``None`` if there are none."""
    kinds = [
        rf"{re.escape(architecture.layers)}[.][0-9]+[.]{re.escape(unit.name)}[.][0-9]+[.](?:{'|'.join(unit.linears)})"
        for unit in architecture.units
        if unit.is_bank
    ]
    return re.compile("|".join(kinds)) if kinds else None


def _pack(folder: Path, architecture: Architecture, experts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters in which transformers holds ``experts``, by name of the Linear."""
    sizes: dict[str, int] = {}
    for name in experts:
        bank, expert, _ = name.rsplit(".", 2)
        sizes[bank] = max(sizes.get(bank, 0), int(expert) + 1)
    packed = {}
    try:
        for bank, size in sizes.items():
            linears = next(unit.linears for unit in architecture.units if bank.endswith(f".{unit.name}"))
            gate, up, down = (
                torch.stack([experts[f"{bank}.{expert}.{name}"] for expert in range(size)]) for name in linears
            )
            module = architecture.module_name(bank)
            packed[f"{module}.gate_up_proj"] = torch.cat([gate, up], dim=1)
            packed[f"{module}.down_proj"] = down
    except KeyError as cause:
        raise ModelError(f"has no weight of {cause}", where=str(folder), hint="check it with verify") from cause
    return packed


def _decode(folder: Path, file: Path, places: dict[str, str], banks: re.Pattern[str]) -> dict[str, torch.Tensor]:
    """The tensors of ``file``, those of quantized experts as one weight each."""
    found = {}
    with safe_open(file, framework="pt") as opened:
        for key in opened.keys():  # noqa: SIM118
            linear, _, suffix = key.rpartition(".")
            if not banks.fullmatch(linear) or f"{linear}.weight_scale" not in places:
                found[key] = opened.get_tensor(key)
            elif suffix in ("weight", "weight_packed"):
                found[f"{linear}.weight"] = _weight(folder, linear, places)
    return found


@cache
def _suffixes() -> tuple[str, ...]:
    """Of all tensors in which some format is stored; 128 x 128 is a size that every format takes."""
    return tuple(dict.fromkeys(suffix for format in _FORMATS for suffix in stored(format, 128, 128)))


def _weight(folder: Path, linear: str, places: dict[str, str]) -> torch.Tensor:
    parts = {}
    for suffix in _suffixes():
        name = f"{linear}.{suffix}"
        if name in places:
            with safe_open(folder / places[name], framework="pt") as opened:
                parts[suffix] = opened.get_tensor(name)
    for format in _FORMATS:
        with suppress(ShapeError):  # the tensors are those of another format
            decoded = get_codec(format).decode(Quantized.from_compressed_tensors(parts, format))
            return torch.from_numpy(decoded).to(torch.bfloat16)  # which engines compute with
    found = ", ".join(f"{suffix} {part.dtype} {list(part.shape)}" for suffix, part in parts.items())
    raise ModelError(
        f"has {found}, no known form of a weight", where=f"{folder}: {linear}", hint="check it with verify"
    )


def _without(config: dict[str, Any], tensors: list[str], banks: re.Pattern[str]) -> dict[str, Any]:
    """``config`` for the copy: nothing is said of experts but that they are not quantized."""
    section = dict(config[SECTION])
    experts = {name.rpartition(".")[0] for name in tensors if banks.fullmatch(name.rpartition(".")[0])}
    groups = {}
    for name, group in section["config_groups"].items():
        targets = [target for target in group["targets"] if not any(matches(target, expert) for expert in experts)]
        if targets:
            groups[name] = {**group, "targets": targets}
    if not groups:
        return {key: value for key, value in config.items() if key != SECTION}
    formats = {group["format"] for group in groups.values()}
    section["config_groups"] = groups
    section["format"] = formats.pop() if len(formats) == 1 else "mixed-precision"
    section["ignore"] = [*section["ignore"], f"re:^(?:{banks.pattern})$"]
    return {**config, SECTION: section}


def matches(target: str, name: str) -> bool:
    """Whether ``target`` of a quantization section, ``re:`` and an expression or a name, is for the Linear ``name``."""
    return re.match(target[3:], name) is not None if target.startswith("re:") else target == name
