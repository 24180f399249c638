"""Versions, instruction sets and optional packages: what a bug report needs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from prismaquant.cli.common import plain
from prismaquant.quantity import format_bytes

if TYPE_CHECKING:
    from prismaquant.environment import Environment

FUNCTION = "doctor"
LONG = False
EXAMPLES = """\
examples:
  prismaquant doctor
  prismaquant doctor --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def document(environment: Environment) -> Any:
    return plain(environment)


def show(environment: Environment) -> None:
    from prismaquant.cli.tables import table

    rows = [
        ("prismaquant", environment.version),
        ("compiled for", environment.compiled_isa),
        ("kernels in use", environment.active_isa),
        ("PRISMAQUANT_ISA may be", ", ".join(environment.available_isas)),
        ("processor has", ", ".join(environment.processor_isas)),
        ("python", environment.python),
        ("system", environment.system),
        ("cores", str(environment.cores)),
        ("free disk here", format_bytes(environment.free_disk)),
    ]
    for package in environment.packages:
        missing = (
            "missing" if package.extra is None else f"not installed; pip install 'prismaquant-cpp[{package.extra}]'"
        )
        rows.append((package.name, package.version or missing))
    table(("what", "value"), rows, left=2)
