"""Arguments that several verbs share, and the JSON form of results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = [
    "add_model",
    "add_output",
    "add_plan",
    "add_sensitivity",
    "add_threads",
    "add_writing",
    "plain",
    "scheme_list",
]


def add_model(parser: argparse.ArgumentParser) -> None:
    """The positional MODEL."""
    parser.add_argument("model", metavar="MODEL", help="model folder: config.json and safetensors shards")


def add_plan(parser: argparse.ArgumentParser) -> None:
    """``--plan``, the recipe."""
    parser.add_argument(
        "--plan", required=True, metavar="RECIPE", help="made by 'prismaquant plan', or an exported folder"
    )


def add_sensitivity(parser: argparse.ArgumentParser) -> None:
    """``--sensitivity``, where it is needed."""
    parser.add_argument("--sensitivity", required=True, metavar="FILE", help="made by 'prismaquant probe'")


def add_output(parser: argparse.ArgumentParser) -> None:
    """``-o``, the folder to write."""
    parser.add_argument("-o", "--output", "--out", dest="out", required=True, metavar="OUT", help="the new folder")


def add_writing(machine: argparse._ArgumentGroup) -> None:
    """How it is written."""
    machine.add_argument("--force", action="store_true", help="replace OUT if it exists")
    machine.add_argument("--shard-size", default="5GB", metavar="SIZE", help="largest shard (default: %(default)s)")


def add_threads(group: argparse._ArgumentGroup) -> None:
    """``--threads``; the result never depends on it."""
    group.add_argument("--threads", type=int, metavar="N", help="threads of codecs and solvers (default: all)")


def scheme_list(text: str) -> tuple[str, ...]:
    """``"NVFP4A16,FP8_DYNAMIC"`` as names; upper case, as compressed-tensors writes them."""
    return tuple(name.strip().upper() for name in text.split(",") if name.strip())


def plain(result: Any) -> Any:
    """``result`` (dataclasses, paths, tuples) as dicts, lists and strings; infinities as ``None``."""
    import msgspec

    return _finite(msgspec.to_builtins(result, enc_hook=_encode))


def _encode(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0.0 else value
