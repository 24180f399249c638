"""The shipped schemas are those of the dataclasses, and they are schemas."""

from __future__ import annotations

import json

import jsonschema
import pytest

from prismaquant.files import schema


@pytest.mark.parametrize("name", schema.KINDS)
def test_the_shipped_file_is_what_the_dataclass_says(name: str) -> None:
    shipped = schema.FOLDER / schema.file_name(name)
    assert shipped.read_bytes() == schema.encode(name), "run: python -m prismaquant.files.schema"


def test_every_shipped_file_has_a_kind() -> None:
    assert {path.name for path in schema.FOLDER.iterdir()} == {schema.file_name(name) for name in schema.KINDS}


@pytest.mark.parametrize("name", schema.KINDS)
def test_it_is_a_schema_that_names_itself(name: str) -> None:
    document = schema.schema_of(name)
    jsonschema.Draft202012Validator.check_schema(document)
    assert document["properties"]["schema"] == {"const": name}
    assert "schema" in document["required"]
    assert "writer" not in document["required"]


@pytest.mark.parametrize("name", schema.KINDS)
def test_every_field_of_the_document_is_explained(name: str) -> None:
    document = schema.schema_of(name)
    assert document["description"]
    silent = [field for field, entry in document["properties"].items() if not ({"description", "const"} & entry.keys())]
    assert not silent


def test_unknown_fields_are_allowed_everywhere() -> None:
    assert 'additionalProperties": false' not in json.dumps([schema.schema_of(name) for name in schema.KINDS])
