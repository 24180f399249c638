"""Write ``python/prismaquant/_core.pyi`` from the built module, or compare it (``--check``).

The stub is committed, because a type checker has no built module. A test runs ``--check``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).resolve().parents[1] / "python" / "prismaquant" / "_core.pyi"


def generate() -> str:
    """The stub of the module that ``import prismaquant._core`` finds, formatted."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pybind11_stubgen", "prismaquant._core", "-o", folder, "--exit-code"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        path = Path(folder) / "prismaquant" / "_core.pyi"
        subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", "--line-length=120", str(path)], check=True)
        return path.read_text()


def main() -> int:
    text = generate()
    if sys.argv[1:] == ["--check"]:
        if STUB.read_text() == text:
            return 0
        print(f"{STUB} is stale; run: python bindings/make_stubs.py")
        return 1
    STUB.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
