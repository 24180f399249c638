"""One place states the version; the header, the module, the distribution and the command all say the same."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import prismaquant as pq


def header_version(path: Path) -> str:
    """``PRISMAQUANT_VERSION``, after a look that its three parts agree with it."""
    macros = dict(re.findall(r"#define (PRISMAQUANT_VERSION\w*) (.+)", path.read_text(encoding="utf-8")))
    parts = [macros[f"PRISMAQUANT_VERSION_{part}"] for part in ("MAJOR", "MINOR", "PATCH")]
    version = macros["PRISMAQUANT_VERSION"].strip('"')
    assert version == ".".join(parts)
    return version


def test_module_header_and_distribution_agree(root: Path) -> None:
    version = header_version(root / "include" / "prismaquant" / "version.hpp")
    assert pq.__version__ == version
    assert pq.doctor().version == version
    assert importlib.metadata.version("prismaquant-cpp") == version


def test_the_headers_that_are_installed_are_of_this_version() -> None:
    assert header_version(Path(pq.get_include()) / "prismaquant" / "version.hpp") == pq.__version__


def test_the_command_says_it() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "prismaquant", "--version"], capture_output=True, text=True, check=True
    )
    assert pq.__version__ in result.stdout.split()


def test_no_other_file_states_a_version(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]
    for path in [root / "CMakeLists.txt", *(root / "python" / "prismaquant").rglob("*.py")]:
        assert f'"{pq.__version__}"' not in path.read_text(encoding="utf-8"), path
