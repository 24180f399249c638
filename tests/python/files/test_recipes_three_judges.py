"""Three readers of recipes agree: ours in Python, any JSON Schema validator with the shipped schema, and ours in C++.

The C++ reader is held to the same documents by ``tests/cpp/io/test_recipe.cpp``.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import pytest

from prismaquant.errors import StageFileError
from prismaquant.files import plan, record, schema

RECIPES = Path(__file__).parents[2] / "data" / "recipes"
GOOD = sorted((RECIPES / "good").iterdir())
BAD = sorted((RECIPES / "bad").iterdir())

SHIPPED = json.loads((schema.FOLDER / schema.file_name(plan.SCHEMA)).read_bytes())
VALIDATOR = jsonschema.Draft202012Validator(SHIPPED)

#: What is put in the place of a value.
VALUES = (
    *("0", "-0", "2.0", "2e0", "1e2", "-1", "1.5", "1e308", "1e309", "NaN", "01", ".5", "1."),
    *("9007199254740991", "9007199254740992", "18446744073709551615"),
    *(
        "true",
        "false",
        "null",
        '""',
        '"x"',
        '"2"',
        '"\\ud800"',
        "[]",
        "{}",
        "[null]",
        '["a"]',
        "[1]",
        "[1,]",
        '{"a":1}',
    ),
)


def ours(data: bytes) -> bool:
    try:
        record.decode(data, plan.Plan, plan.SCHEMA, "recipe.json")
    except StageFileError:
        return False
    return True


def the_schema(data: bytes) -> bool:
    """As a reader in another language would: a parser that is strict about JSON, then the shipped schema."""

    def refuse(text: str) -> NoReturn:
        raise ValueError(text)

    def number(text: str) -> float:
        return float(text) if math.isfinite(float(text)) else refuse(text)

    try:
        document = json.loads(data.decode("utf-8-sig"), parse_float=number, parse_constant=refuse)
        json.dumps(document, ensure_ascii=False).encode()  # no lone surrogates
    except ValueError:
        return False
    return VALIDATOR.is_valid(document)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_recipes_are_read(path: Path) -> None:
    read = plan.read(path)
    assert ours(record.encode(read, plan.SCHEMA))
    assert the_schema(path.read_bytes())


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_recipes_are_refused(path: Path) -> None:
    with pytest.raises(StageFileError) as caught:
        plan.read(path)
    assert caught.value.where == str(path)
    assert not the_schema(path.read_bytes())


def test_there_are_documents() -> None:
    assert len(GOOD) > 5
    assert len(BAD) > 20


def test_the_error_names_the_place_in_the_document() -> None:
    for name, place in {
        "linears_not_text": "$.units[1].linears[0]",
        "bytes_is_text": "$.units[0].bytes",
        "note_without_text": "`text` - at `$.notes[0]`",
        "missing_units": "`units`",
        "bytes_negative": "$.bytes",
    }.items():
        with pytest.raises(StageFileError) as caught:
            plan.read(RECIPES / "bad" / f"{name}.json")
        assert place in caught.value.message


def test_whole_numbers_arrive_as_integers_and_prices_as_floats() -> None:
    read = plan.read(RECIPES / "good" / "whole_numbers_written_as_floats.json")
    assert (read.parameters, read.bytes, read.units[0].bytes) == (65536, 36868, 36868)
    assert type(read.bytes) is int
    price = plan.read(RECIPES / "good" / "prices_written_as_integers.json").units[0].price
    assert (price, type(price)) == (1.0, float)


def test_the_same_field_twice_means_the_last_one() -> None:
    assert plan.read(RECIPES / "good" / "repeated_field_last_one_good.json").bytes == 36868


def test_python_and_the_schema_agree_on_mutations() -> None:
    """Any value of a good recipe replaced, taken out or doubled; both judges say the same of it."""
    choose = random.Random(0)
    base = json.loads((RECIPES / "good" / "mixed.json").read_bytes())
    verdicts = []
    for _ in range(600):
        document = json.loads(json.dumps(base))
        parent, key = choose.choice(list(_places(document)))
        value = choose.choice(VALUES)
        if choose.random() < 0.2:
            del parent[key]
        else:
            parent[key] = "@"
        text = json.dumps(document).replace('"@"', value, 1).encode("utf-8", "surrogatepass")
        verdicts.append(ours(text))
        assert the_schema(text) == verdicts[-1], text.decode()
    assert 100 < sum(verdicts) < 500


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Container and key of every value inside ``value``."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]
