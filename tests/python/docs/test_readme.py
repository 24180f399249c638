"""The README's programs run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import prismaquant as pq


def blocks(root: Path, language: str) -> list[str]:
    """The fenced blocks of README.md in ``language``."""
    return re.findall(rf"^```{language}\n(.*?)^```", (root / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(root: Path, tmp_path: Path) -> Path:
    """A folder that sees the examples under the path the README uses."""
    (tmp_path / "examples").symlink_to(root / "examples")
    return tmp_path


def test_python_programs_run(root: Path, workplace: Path) -> None:
    printed = []
    for program in blocks(root, "python"):
        done = subprocess.run([sys.executable, "-c", program], cwd=workplace, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    pipeline, solvers = printed
    assert "Plan(4.7" in pipeline
    assert "SolveReport(best: gptq -> coordinate_descent -> two_sided, objective" in solvers
    assert "SolveReport(stages: gptq -> coordinate_descent, objective" in solvers
    assert (workplace / "tiny-llama-4.75" / "config.json").exists()


def test_cpp_programs_compile_and_run(root: Path, workplace: Path) -> None:
    (program,) = blocks(root, "cpp")
    (workplace / "readme.cpp").write_text(program)
    flags = [
        "-std=c++20",
        "-ffp-contract=off",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        f"-I{pq.get_include()}",
    ]
    built = subprocess.run(["g++", *flags, "readme.cpp", "-o", "readme"], cwd=workplace, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([str(workplace / "readme")], capture_output=True, text=True, check=True)
    assert ran.stdout == "9220 bytes, squared error 0\n"


def test_shell_lines_name_existing_verbs_and_scripts(root: Path) -> None:
    from prismaquant.cli import VERBS, parser_of

    for line in "".join(blocks(root, "sh")).splitlines():
        words = line.split("#")[0].split()
        if words[0] == "bash":
            assert (root / words[1]).exists()
        else:
            assert words[0] == "prismaquant"
            assert words[1] in VERBS
            parser_of(words[1]).parse_args(words[2:])  # exits on an option that does not exist
