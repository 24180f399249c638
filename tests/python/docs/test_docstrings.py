"""The examples in docstrings run, and everything public is documented."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import prismaquant as pq

PACKAGE = Path(__file__).parents[3] / "python" / "prismaquant"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")
Definition = ast.FunctionDef | ast.ClassDef


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def has_example(path: Path) -> bool:
    return ">>> " in path.read_text(encoding="utf-8")


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public classes, functions and methods without a docstring.

    A method may be named in the docstring of its class instead, or be one of a base class; an exception may stand in
    the tree of exceptions at the top of its module.
    """
    outline = ast.get_docstring(tree) or ""
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        text = ast.get_docstring(node) or ""
        if not text and not (isinstance(node, ast.ClassDef) and f" {node.name} " in outline):
            yield node.name
        if isinstance(node, ast.ClassDef) and not node.bases:
            for member in node.body:
                if not isinstance(member, ast.FunctionDef) or member.name.startswith("_"):
                    continue
                if not ast.get_docstring(member) and not re.search(rf"\b{member.name}\b", text):
                    yield f"{node.name}.{member.name}"


@pytest.mark.parametrize("path", [path for path in FILES if has_example(path)], ids=module_name)
def test_the_examples_run(path: Path) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module_name(path)), optionflags=doctest.ELLIPSIS)
    assert tried > 0
    assert failed == 0


def test_the_central_functions_have_examples() -> None:
    assert {"prismaquant.codec.codec", "prismaquant.solver.run", "prismaquant.quantity"} <= {
        module_name(path) for path in FILES if has_example(path)
    }


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_is_documented(path: Path) -> None:
    text = ast.get_docstring(parsed(path))
    assert text
    assert text.splitlines()[0].endswith((".", ":"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_everything_public_is_documented(path: Path) -> None:
    missing = list(undocumented(parsed(path)))
    if path.parent.name == "cli":  # of a verb, the docstring of the module is what its --help says
        missing = [name for name in missing if name not in ("add_arguments", "document", "show", "exit_code")]
    assert missing == []


def test_a_missing_docstring_is_found() -> None:
    source = """
class Named:
    'Has width.'
    def width(self): ...
    def height(self): ...
    def _hidden(self): ...
class Bare:
    def width(self): 'Documented.'
def function(): ...
def _hidden(): ...
"""
    assert list(undocumented(ast.parse(source))) == ["Named.height", "Bare", "function"]


@pytest.mark.parametrize("name", pq.__all__)
def test_a_section_of_parameters_names_parameters_that_exist(name: str) -> None:
    thing = getattr(pq, name)
    _, heading, rest = (inspect.getdoc(thing) or "").partition("Parameters\n----------\n")
    if heading and inspect.isfunction(thing):
        section = re.split(r"\n\n", rest)[0]
        named = {word for line in re.findall(r"^\w+(?:, \w+)*$", section, re.MULTILINE) for word in line.split(", ")}
        assert named
        assert named <= set(inspect.signature(thing).parameters)
