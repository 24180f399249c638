"""JSON Schemas of the stage files, made from their dataclasses: for readers in other languages.

They are shipped beside this module in ``schemas/``; ``python -m prismaquant.files.schema`` writes them again after a
dataclass was changed.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from prismaquant.files import evaluation, manifest, plan, polish, sensitivity

__all__ = ["FOLDER", "KINDS", "encode", "file_name", "schema_of"]

#: Where the shipped schemas are.
FOLDER = Path(__file__).parent / "schemas"

#: Schema id -> dataclass of the document.
KINDS: dict[str, type] = {
    plan.SCHEMA: plan.Plan,
    sensitivity.SCHEMA: sensitivity.Document,
    polish.SCHEMA: polish.Polish,
    manifest.SCHEMA: manifest.Manifest,
    evaluation.SCHEMA: evaluation.Evaluation,
}
_CLASSES = {
    name: member
    for module in (evaluation, manifest, plan, polish, sensitivity)
    for name, member in vars(module).items()
    if dataclasses.is_dataclass(member)
} | {"Document": sensitivity.Sensitivity}  # whose docstring explains the fields of both


def schema_of(schema: str) -> dict[str, Any]:
    """The JSON Schema of the documents with the id ``schema``.

    Fields that it does not name are allowed, as the readers allow them. What it cannot say: the text is UTF-8, and
    numbers are in the range of a double.
    """
    kind = KINDS[schema].__name__
    definitions = {name: _described(name, entry) for name, entry in msgspec.json.schema(KINDS[schema])["$defs"].items()}
    root = definitions.pop(kind)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": schema,
        "description": _first_paragraph(inspect.getmodule(KINDS[schema])),
        "type": "object",
        "properties": {
            "schema": {"const": schema},
            "writer": {"description": "Package -> release that wrote the file; readers ignore it."},
            **root["properties"],
        },
        "required": ["schema", *root["required"]],
        "$defs": definitions,
    }


def file_name(schema: str) -> str:
    """``"prismaquant.recipe/1"`` -> ``"recipe-1.schema.json"``."""
    return schema.removeprefix("prismaquant.").replace("/", "-") + ".schema.json"


def encode(schema: str) -> bytes:
    """The content of the shipped file."""
    return json.dumps(schema_of(schema), indent=1).encode() + b"\n"


def _described(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """``entry`` of the class ``name``, with the words of its docstring for the whole and for each attribute."""
    _, _, attributes = (inspect.getdoc(_CLASSES[name]) or "").partition("\n\nAttributes\n----------\n")
    properties = dict(entry["properties"])
    names: list[str] = []
    for line in attributes.splitlines():
        if not line.startswith(" "):
            names = line.split(", ")
        for field in properties.keys() & names if line.startswith(" ") else ():
            text = f"{properties[field].get('description', '')} {line.strip()}".strip()
            properties[field] = {**properties[field], "description": text}
    return {**entry, "description": _first_paragraph(_CLASSES[name]), "properties": properties}


def _first_paragraph(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n\n")[0].replace("\n", " ")


def main() -> None:
    """Write the shipped files."""
    FOLDER.mkdir(exist_ok=True)
    for schema in KINDS:
        (FOLDER / file_name(schema)).write_bytes(encode(schema))


if __name__ == "__main__":
    main()
