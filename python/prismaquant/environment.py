"""What is installed and what this machine has: for bug reports and for builds against the headers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Environment", "Package", "doctor", "get_include", "machine_memory"]

#: Optional packages, with the extra that brings them.
_OPTIONAL = {
    "torch": "probe",
    "transformers": "probe",
    "compressed-tensors": "eval",
    "matplotlib": "eval",
}
_REQUIRED = ("numpy", "safetensors", "msgspec", "rich", "filelock")


@dataclass(frozen=True, slots=True)
class Package:
    """An installed (or missing: ``version`` is ``None``) package; ``extra`` names what brings an optional one."""

    name: str
    version: str | None
    extra: str | None


@dataclass(frozen=True, slots=True)
class Environment:
    """Result of `doctor`.

    Attributes
    ----------
    version
        Version of prismaquant, from the compiled core.
    active_isa
        Instruction set of the kernels in use: the widest of this processor, or the one that ``PRISMAQUANT_ISA`` names.
    available_isas
        Instruction sets that ``PRISMAQUANT_ISA`` can name here, narrowest first.
    python, system
        Versions of the interpreter and of the operating system.
    cores, free_disk
        Usable processor cores; bytes free in the current folder.
    packages
        Required and optional packages.
    """

    version: str
    active_isa: str
    available_isas: tuple[str, ...]
    python: str
    system: str
    cores: int
    free_disk: int
    packages: tuple[Package, ...]

    def __repr__(self) -> str:
        return f"Environment(prismaquant {self.version}, {self.active_isa}, python {self.python}, {self.system})"


def doctor() -> Environment:
    """Versions, instruction sets, and which optional packages are present. Imports none of them."""
    from prismaquant import _core

    packages = [Package(name, _installed(name), None) for name in _REQUIRED]
    packages += [Package(name, _installed(name), extra) for name, extra in _OPTIONAL.items()]
    return Environment(
        version=_core.version(),
        active_isa=_core.active_isa(),
        available_isas=tuple(_core.available_isas()),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        free_disk=shutil.disk_usage(".").free,
        packages=tuple(packages),
    )


def get_include() -> str:
    """The folder to pass to a C++ compiler as ``-I``: it holds ``prismaquant/prismaquant.hpp``."""
    from prismaquant import _core

    return str(Path(_core.__file__).parent / "include")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
