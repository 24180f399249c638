"""The texts of ``--help`` are committed: a change of the command line shows up as a change of a text."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from prismaquant.cli import VERBS, main, parser_of

GOLDEN = Path(__file__).parents[2] / "data" / "help"
PAGES = {"prismaquant": ["--help"]} | {verb: [verb, "--help"] for verb in VERBS}


@pytest.fixture
def text(monkeypatch, capsys):
    """Gives the text of a page."""

    def text(page: str) -> str:
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as left:
            main(PAGES[page])
        assert left.value.code == 0
        return capsys.readouterr().out

    return text


def words(page: str) -> list[list[str]]:
    """Lines as lists of words; the usage, which Python releases wrap differently, as one."""
    usage, _, rest = page.partition("\n\n")
    return [usage.split(), *(line.split() for line in rest.splitlines())]


@pytest.mark.parametrize("page", PAGES)
def test_it_is_the_committed_text(page, text):
    golden = GOLDEN / f"{page}.txt"
    command = f"COLUMNS=100 {shlex.join(['prismaquant', *PAGES[page]])} > tests/data/help/{golden.name}"
    assert words(text(page)) == words(golden.read_text()), f"if the change is meant: {command}"


def test_there_is_no_other_text():
    assert {path.stem for path in GOLDEN.iterdir()} == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_it_starts_with_examples_that_are_understood(page, text):
    lines = text(page).splitlines()
    start = lines.index("examples:")
    assert start < 15
    commands = [line for line in lines[start + 1 :] if line.startswith("  prismaquant ")]
    assert len(commands) >= 2
    for command in commands:
        _, verb, *arguments = shlex.split(command)
        parser_of(verb).options_of(arguments)


@pytest.mark.parametrize("verb", VERBS)
def test_every_default_is_shown(verb, text):
    page = " ".join(text(verb).split())
    for action in parser_of(verb)._actions:
        if action.option_strings and action.default not in (None, True, False, (), "==SUPPRESS=="):
            value = ",".join(action.default) if isinstance(action.default, tuple) else action.default
            shown = page[page.index(f"{', '.join(action.option_strings)} {action.metavar} ") :]
            assert f"(default: {value})" in shown.replace("(default: NVFP4, ", "(default: NVFP4,").replace(
                "NVFP4A16, ", "NVFP4A16,"
            )
            assert action.help


def test_no_argument_shows_the_overview(text, capsys):
    page = text("prismaquant")
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 0
    assert capsys.readouterr().out == page
    for verb, what in VERBS.items():
        assert f"  {verb:9} {what}\n" in page


@pytest.mark.parametrize("arguments", [["--help"], ["quantize", "--help"], ["eval", "--help"], ["--version"]])
def test_it_needs_no_heavy_import(arguments):
    heavy = ["numpy", "torch", "transformers", "msgspec", "rich", "safetensors"]
    program = f"""
import sys
from prismaquant.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
sys.stderr.write(" ".join(sorted(sys.modules.keys() & {set(heavy)!r})))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert ran.stderr == ""
    assert ran.stdout
