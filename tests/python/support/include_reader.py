"""Reads the includes of the C++ headers and says which of them cross a wall of the house."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROOMS", "violations"]

#: Room of include/prismaquant -> rooms it may include.
ROOMS = {
    "core": set[str](),
    "formats": {"core"},
    "simd": {"core"},
    "codec": {"core", "formats", "simd"},
    "linalg": {"core"},
    "solver": {"core", "formats", "simd", "codec", "linalg"},
    "allocator": {"core"},
    "io": {"core"},
    "adapt": {"core"},
}
#: Headers beside the rooms. Every room may include version.hpp; nobody includes the umbrella.
UMBRELLA, VERSION = "prismaquant.hpp", "version.hpp"
TOP = {UMBRELLA: {"core", "formats", "codec", "solver", "allocator"}, VERSION: set[str]()}

#: First part of the path of a third-party header -> the one room that may see it.
LIBRARIES = {
    "xsimd": "simd",
    "xtensor": "adapt",
    "xtl": "adapt",
    "nlohmann": "io",
    "Eigen": "linalg",
    "cblas.h": "linalg",
    "lapacke.h": "linalg",
    "pybind11": "bindings",
}
#: Headers of compilers and systems -> the one file that needs them.
SYSTEM = {
    "xmmintrin.h": "core/fp_environment.hpp",  # flushing of subnormals has no standard header
    "immintrin.h": "simd/lanes.hpp",
    "emmintrin.h": "simd/lanes.hpp",
    "arm_neon.h": "simd/lanes.hpp",
    "unistd.h": "solver/memory.hpp",  # how much memory there is has no standard header
}

_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b[ \t]*(.*)$", re.MULTILINE)
_NAME = re.compile(r'(?:<([^<>]+)>|"([^"]+)")\s*(?://.*)?')
_STANDARD = re.compile(r"[a-z_0-9]+")  # the C++ standard library has neither dots nor slashes


def violations(root: Path) -> list[str]:
    """All forbidden includes of ``include/prismaquant`` and ``bindings`` below ``root``, as ``file: header: why``."""
    house = root / "include" / "prismaquant"
    found = []
    for path in sorted([*house.rglob("*.?pp"), *(root / "bindings").rglob("*.?pp")]):
        if path.is_relative_to(house):
            name = path.relative_to(house).as_posix()
            room = name.partition("/")[0] if "/" in name else "top"
        else:
            name, room = path.relative_to(root).as_posix(), "bindings"
        if room != "bindings" and room not in ROOMS and name not in TOP:
            found.append(f"{name}: there is no room for it")
            continue
        for header in _includes(path):
            why = _why_not(name, room, header, root)
            if why is not None:
                found.append(f"{name}: {header}: {why}")
    return found


def _includes(path: Path) -> Iterator[str]:
    for match in _INCLUDE.finditer(path.read_text(encoding="utf-8")):
        header = _NAME.fullmatch(match[1].strip())
        yield match[1] if header is None else header[1] or header[2]


def _why_not(name: str, room: str, header: str, root: Path) -> str | None:
    """Why ``name``, a file of ``room``, may not include ``header``."""
    first, _, rest = header.partition("/")
    if first == "prismaquant":
        if not (root / "include" / header).is_file():
            return "does not exist"
        target = rest.partition("/")[0]
        allowed = (
            {*ROOMS, VERSION} if room == "bindings" else {room, VERSION} | (TOP.get(name) or ROOMS.get(room, set()))
        )
        return None if target in allowed else f"{room} may not include {target}"
    if first in LIBRARIES:
        return None if LIBRARIES[first] == room else f"only {LIBRARIES[first]} may include {first}"
    if header in SYSTEM:
        return None if SYSTEM[header] == name else f"only {SYSTEM[header]} may include it"
    if _STANDARD.fullmatch(header) or (room == "bindings" and (root / "bindings" / header).is_file()):
        return None
    return "neither of the standard library nor written as prismaquant/ROOM/FILE"
