"""Facts of model architectures, one data entry (``<model_type>.toml``) each.

An entry has five fields that are required:

``model_type``
    As in ``config.json``; also the name of the file.
``classes``
    Accepted values of ``architectures`` in ``config.json``.
``layers``
    Prefix of the decoder layers in tensor names (``"model.layers"``).
``source``
    Where the facts were read.
``units``
    Array of tables ``{name, linears}`` in the order of the forward pass, names relative to the layer. ``linears`` that
    inference engines fuse into one module go into one unit under the fused name; a single Linear gives the unit its
    name.

    A bank of experts is one unit: ``linears`` are then those of one expert, gate, up and down, relative to
    ``<name>.<number>``, and ``count`` lists the fields of ``config.json`` of which one says how many experts there are.

    ``variant = "<slot>/<choice>"`` marks units that only some layers have: of the choices of a slot a layer has the one
    whose tensors are there.

Seven are optional:

``text``
    Key of ``config.json`` under which the fields of the language model are, in models that also see or hear
    (``"text_config"``); without that key, as some folders are, they are at its top.
``defaults``
    Table of fields that published ``config.json`` files leave out, with transformers' values for them.
``layer_types``
    List of ``"full_attention"``, ``"sliding_attention"`` and ``"linear_attention"``, repeated over the layers: what the
    layers are where ``config.json`` does not say it (default: all are full).
``kept``
    List of modules with weights that are no unit on purpose, names relative to the layer: routers, convolutions.
``replicated``
    List of units of which every device has a whole copy under tensor parallelism, names relative to the layer.
``mtp``
    Table of the parts of the layer that predicts a further token, names on disk with ``{layers}`` for the number of
    decoder layers: ``block`` is a decoder layer like the last one with full attention, ``projection`` makes its input
    from the embedding of the next token behind ``embedding_norm`` and the final hidden state behind ``hidden_norm``, in
    this order, and ``norm`` is in front of the output head, which is the model's (DeepSeek-V3, section 2.2).
``renamed``
    Table: part of a tensor name on disk -> what transformers calls it (``block_sparse_moe = "mlp"``); of several parts
    in a row where there is a dot in it (``"language_model.model" = "model.language_model"``). All other names are those
    of transformers' modules.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from prismaquant.errors import ModelError

__all__ = ["Architecture", "UnitEntry", "find_architecture", "list_architectures", "parse_entry", "prefixes"]

_TEXT_FIELDS = ("model_type", "layers", "source")
_FIELDS = {*_TEXT_FIELDS, "classes", "units"}
_OPTIONAL_FIELDS = {"defaults", "kept", "layer_types", "mtp", "renamed", "replicated", "text"}
_UNIT_FIELDS = {"name", "linears"}
_MTP_FIELDS = {"block", "projection", "embedding_norm", "hidden_norm", "norm"}
_MOST_EXPERTS = 65536


@dataclass(frozen=True, slots=True)
class UnitEntry:
    """One unit of a decoder layer, as described at the top of this module; names are relative to the layer."""

    name: str
    linears: tuple[str, ...]
    count: tuple[str, ...] = ()
    variant: str = ""

    @property
    def is_bank(self) -> bool:
        """Whether it is a bank of experts."""
        return bool(self.count)

    def experts(self, config: Mapping[str, Any], where: str) -> int:
        """How many experts the bank has in the model that ``config`` (of the file ``where``) describes; 0 for others.

        Raises
        ------
        ModelError
            ``config`` does not say it.
        """
        if not self.is_bank:
            return 0
        found = [config[field] for field in self.count if config.get(field) is not None]
        if not found or type(found[0]) is not int or not 0 < found[0] <= _MOST_EXPERTS:
            raise ModelError(
                f"the number of experts is {found[0] if found else None!r}, expected 1 to {_MOST_EXPERTS}",
                where=where,
                hint=f"it is in the field {' or '.join(self.count)}; download config.json again",
            )
        return found[0]

    def names(self, experts: int = 0) -> tuple[str, ...]:
        """Names of all its Linears; of a bank expert by expert."""
        if not self.is_bank:
            return self.linears
        return tuple(f"{self.name}.{expert}.{linear}" for expert in range(experts) for linear in self.linears)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One entry; the fields are described at the top of this module."""

    model_type: str
    classes: tuple[str, ...]
    layers: str
    source: str
    units: tuple[UnitEntry, ...]
    kept: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    layer_types: tuple[str, ...] = ("full_attention",)
    replicated: tuple[str, ...] = ()
    text: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    mtp: Mapping[str, str] = field(default_factory=dict)

    def module_name(self, name: str) -> str:
        """What transformers calls the module or tensor that is ``name`` on disk."""
        if not self.renamed:
            return name
        parts = "|".join(map(re.escape, sorted(self.renamed, key=len, reverse=True)))
        return re.sub(rf"(?<![^.])(?:{parts})(?![^.])", lambda found: self.renamed[found[0]], name)

    def text_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the language model in ``config``, and what it leaves out."""
        section = config.get(self.text)
        return {**self.defaults, **(section if isinstance(section, Mapping) else config)}

    @property
    def weights(self) -> frozenset[str]:
        """Names of all weights of the entry, relative to the layer, those of experts not among them."""
        return frozenset(f"{linear}.weight" for unit in self.units if not unit.is_bank for linear in unit.linears)

    def of_layer(self, layer: int, present: Container[str]) -> tuple[UnitEntry, ...]:
        """The units that ``layer`` has.

        Parameters
        ----------
        present
            `prefixes` of the tensors of the model.
        """
        slots: dict[str, list[str]] = {}
        found = set()
        for unit in self.units:
            if unit.variant:
                choices = slots.setdefault(unit.variant.partition("/")[0], [])
                choices.append(unit.variant)
                places = [unit.name] if unit.is_bank else [unit.name, *unit.linears]
                if any(f"{self.layers}.{layer}.{place}" in present for place in places):
                    found.add(unit.variant)
        for choices in slots.values():
            if not found.intersection(choices):
                found.add(choices[0])  # something is missing, and will be reported by name
        return tuple(unit for unit in self.units if not unit.variant or unit.variant in found)

    def __repr__(self) -> str:
        return f"Architecture({self.model_type}, {len(self.units)} units per layer)"


def prefixes(tensors: Iterable[str]) -> frozenset[str]:
    """All names of modules in the names of ``tensors``: ``a``, ``a.b`` of ``a.b.weight``."""
    found: set[str] = set()
    for name in tensors:
        while (name := name.rpartition(".")[0]) and name not in found:
            found.add(name)
    return frozenset(found)


def list_architectures() -> tuple[str, ...]:
    """The known values of ``model_type``, sorted."""
    names = (entry.name for entry in resources.files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def find_architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """The entry for the model that ``config`` (of the file ``where``) describes.

    Raises
    ------
    ModelError
        If there is none; the message says what an entry needs and where it goes.
    """
    model_type, classes = config.get("model_type"), config.get("architectures")
    known = list_architectures()
    if not isinstance(model_type, str) or model_type not in known:
        file = f"{model_type if isinstance(model_type, str) and model_type.isidentifier() else '<model_type>'}.toml"
        raise ModelError(
            f"unknown architecture: model_type {model_type!r}, architectures {classes!r}",
            where=where,
            hint=f"known: {', '.join(known)}; to add it, write one file prismaquant/model/architectures/{file} with "
            "the fields model_type, classes, layers, source and units, as in llama.toml beside it",
        )
    architecture = _load(model_type)
    if classes and (not isinstance(classes, list) or not set(map(str, classes)) & set(architecture.classes)):
        raise ModelError(
            f"architectures {classes!r} is not known for model_type {model_type!r}",
            where=where,
            hint=f"known: {', '.join(architecture.classes)}; if its layers are the same, add it to classes in "
            f"prismaquant/model/architectures/{model_type}.toml",
        )
    return architecture


@cache
def _load(model_type: str) -> Architecture:
    name = f"{model_type}.toml"
    text = resources.files(__package__).joinpath(name).read_text("utf-8")
    return parse_entry(text, name)


def parse_entry(text: str, file: str) -> Architecture:
    """The entry in the TOML ``text`` of ``file``.

    Raises
    ------
    ModelError
        Not TOML, a missing, unknown or mistyped field, a Linear in two units, or a file name that is not
        ``<model_type>.toml``.
    """
    where = f"prismaquant/model/architectures/{file}"

    def check(condition: bool, message: str) -> None:
        if not condition:
            raise ModelError(message, where=where, hint="llama.toml beside it shows a good entry")

    try:
        entry = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise ModelError(f"is not TOML ({cause})", where=where) from cause
    check(entry.keys() - _OPTIONAL_FIELDS == _FIELDS, f"has the fields {sorted(entry)}, expected {sorted(_FIELDS)}")
    for name in _TEXT_FIELDS:
        check(isinstance(entry[name], str) and bool(entry[name]), f"{name} is not a text")
    check(_is_names(entry["classes"]), "classes is not a list of names")
    check("kept" not in entry or _is_names(entry["kept"]), "kept is not a list of names")
    for name in ("layer_types", "replicated"):
        check(name not in entry or _is_names(entry[name]), f"{name} is not a list of names")
    renamed = entry.get("renamed", {})
    check("text" not in entry or (isinstance(entry["text"], str) and bool(entry["text"])), "text is not a name")
    check(isinstance(entry.get("defaults", {}), dict), "defaults is not a table")
    check(
        isinstance(renamed, dict) and all(isinstance(name, str) and name for name in renamed.values()),
        "renamed is not a table of names",
    )
    mtp = entry.get("mtp")
    check(
        mtp is None or (isinstance(mtp, dict) and mtp.keys() == _MTP_FIELDS and _is_names(list(mtp.values()))),
        f"mtp is not a table of the names {sorted(_MTP_FIELDS)}",
    )
    check(f"{entry['model_type']}.toml" == file, f"model_type is {entry['model_type']!r}, which is not the file's name")
    check(isinstance(entry["units"], list) and bool(entry["units"]), "units is not a list of tables")
    for unit in entry["units"]:
        check(
            isinstance(unit, dict)
            and unit.keys() - {"count", "variant"} == _UNIT_FIELDS
            and isinstance(unit["name"], str),
            f"unit {unit!r} has not exactly a name and linears (and, for some, count and variant)",
        )
        check("count" not in unit or _is_names(unit["count"]), f"count of unit {unit['name']!r} is not a list of names")
        variant = unit.get("variant", "a/b")
        check(
            isinstance(variant, str) and len(variant.split("/")) == 2 and all(variant.split("/")),
            f"variant of unit {unit['name']!r} is not '<slot>/<choice>'",
        )
        check(_is_names(unit["linears"]), f"linears of unit {unit['name']!r} is not a list of names")
        check(
            "count" not in unit or len(unit["linears"]) == 3,
            f"bank {unit['name']!r} has not the linears of gate, up and down",
        )
        check(
            len(unit["linears"]) > 1 or unit["linears"] == [unit["name"]],
            f"unit {unit['name']!r} has a single Linear and must bear its name",
        )
    linears = [linear for unit in entry["units"] if "count" not in unit for linear in unit["linears"]]
    check(len(set(linears)) == len(linears), "a Linear is in two units")
    names = {unit["name"] for unit in entry["units"]}
    check(len(names) == len(entry["units"]), "two units have the same name")
    return Architecture(
        model_type=entry["model_type"],
        classes=tuple(entry["classes"]),
        layers=entry["layers"],
        source=entry["source"],
        units=tuple(
            UnitEntry(unit["name"], tuple(unit["linears"]), tuple(unit.get("count", ())), unit.get("variant", ""))
            for unit in entry["units"]
        ),
        kept=tuple(entry.get("kept", ())),
        renamed=renamed,
        layer_types=tuple(entry.get("layer_types", ("full_attention",))),
        replicated=tuple(entry.get("replicated", ())),
        text=entry.get("text", ""),
        defaults=entry.get("defaults", {}),
        mtp=mtp or {},
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)
