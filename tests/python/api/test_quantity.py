"""Sizes as people write them."""

from __future__ import annotations

import pytest

from prismaquant.errors import ArgumentError
from prismaquant.quantity import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("21474836480", 21474836480),
        ("12345678901234567890", 12345678901234567890),  # more than a float keeps
        (17, 17),
        ("20GiB", 20 * 2**30),
        (" 20 gib ", 20 * 2**30),
        ("1.5GiB", 3 * 2**29),
        ("20.3GB", 20_300_000_000),
        ("0.29kB", 290),  # 0.29 is no binary fraction
        ("800MB", 800 * 10**6),
        ("2TiB", 2 * 2**40),
        ("7b", 7),
    ],
)
def test_sizes(text: str | int, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "20G", "-5GB", "1e3", "5 apples", "1,5GB", "nan", "0x10", True, None, 1.5])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ArgumentError, match="is not a size; write a number and a unit, for example 20GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (10 * 1024 - 1, "10.0 KiB"),
        (100 * 1024 - 1, "100 KiB"),
        (2**20 - 1, "1.00 MiB"),
        (20 * 2**30, "20.0 GiB"),
        (3 * 2**40, "3.00 TiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_three_digits(count: int, text: str) -> None:
    assert format_bytes(count) == text
