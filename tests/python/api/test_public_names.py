"""The public names: pinned, each at one home, none hidden by a submodule."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import prismaquant as pq

NAMES = [
    "Allocation",
    "Codec",
    "Constraint",
    "CoordinateDescent",
    "Environment",
    "Error",
    "Evaluation",
    "Explanation",
    "Frontier",
    "Gptq",
    "Outlook",
    "Plan",
    "Preset",
    "Quantized",
    "Rtn",
    "ScaleSweep",
    "Sensitivity",
    "Shift",
    "Solution",
    "TwoSided",
    "allocate",
    "convert",
    "describe_presets",
    "diff",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "format_info",
    "frontier",
    "get_codec",
    "get_include",
    "get_scheme",
    "list_formats",
    "list_presets",
    "list_schemes",
    "open",
    "outlook",
    "plan",
    "polish",
    "probe",
    "quantize",
    "serve_command",
    "shared_global_scale",
    "solve",
    "verify",
]

PACKAGE = Path(__file__).parents[3] / "python" / "prismaquant"
MODULES = sorted(PACKAGE.rglob("*.py"))
#: Run, not imported: it has no names.
SCRIPTS = {PACKAGE / "__main__.py"}
#: What each verb of the command line offers.
VERB = ["FUNCTION", "LONG", "EXAMPLES", "add_arguments", "document", "show"]
#: Entry of a module that is also a script; how a verb whose result can be bad ends.
UNLISTED = {"main", "exit_code", "call"}
DEFINITION = ast.FunctionDef | ast.ClassDef


def module_id(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_the_public_names_are_these() -> None:
    assert pq.__all__ == NAMES


def test_dir_shows_the_public_names_only() -> None:
    program = (
        "import prismaquant as pq; before = dir(pq); pq.list_formats(), pq.Plan; print(before == dir(pq), *dir(pq))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", *sorted([*NAMES, "__version__"])]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_documented_function_or_class(name: str) -> None:
    thing = getattr(pq, name)
    assert inspect.isfunction(thing) or inspect.isclass(thing)
    assert thing.__name__ == name
    assert thing.__module__.startswith("prismaquant.")
    assert (thing.__doc__ or "").strip()


def test_star_import_brings_them_all() -> None:
    namespace: dict[str, object] = {}
    exec("from prismaquant import *", namespace)
    assert set(NAMES) == set(namespace) - {"__builtins__"}


@pytest.mark.parametrize("name", ["plann", "calibrate", "_core_", "__wrapped__", ""])
def test_a_name_that_does_not_exist(name: str) -> None:
    with pytest.raises(AttributeError, match=f"^module 'prismaquant' has no attribute '{name}'$"):
        getattr(pq, name)


@pytest.mark.parametrize("package", ["prismaquant", "prismaquant.pipeline"])
def test_no_public_function_is_hidden_by_a_submodule(package: str) -> None:
    """``pq.plan()`` would stop to work once a submodule ``plan`` is imported."""
    folder = PACKAGE.parent.joinpath(*package.split("."))
    submodules = {info.name for info in pkgutil.iter_modules([str(folder)])}
    assert len(submodules) > 2
    assert not submodules & set(NAMES)


def test_verbs_still_work_when_every_room_is_loaded() -> None:
    for name in ("planning", "exporting", "rendering", "model", "files", "pipeline"):
        importlib.import_module(f"prismaquant.{name}")
    for name in NAMES:
        assert callable(getattr(pq, name))


def test_the_table_of_homes_is_the_list_of_imports_for_type_checkers() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    [branch] = [node for node in tree.body if isinstance(node, ast.If)]
    imports = {
        alias.name: node.module
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is None
    }
    homes = {name: f"prismaquant.{module}" for name, module in pq._HOME.items()}  # type: ignore[attr-defined]
    assert homes == imports
    assert sorted(homes) == NAMES


@pytest.mark.parametrize("path", [path for path in MODULES if path not in SCRIPTS], ids=module_id)
def test_every_module_says_what_it_offers(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if len(tree.body) == 1:
        assert ast.get_docstring(tree), "a package without names of its own says what is in it"
        return
    names = top_level_names(tree.body)
    offered = all_of(tree)
    public = {node.name for node in tree.body if isinstance(node, DEFINITION) and not node.name.startswith("_")}
    assert len(set(offered)) == len(offered), "a name twice"
    assert set(offered) <= names, "offered, but not there"
    assert not [name for name in offered if name.startswith("_")], "offered, but private"
    assert public <= {*offered, *UNLISTED}, "neither offered nor private"


def all_of(tree: ast.Module) -> list[str]:
    """The value of ``__all__``; for a verb of the command line, the names that the table of verbs asks for."""
    if "FUNCTION" in top_level_names(tree.body):
        return VERB
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    raise AssertionError("has no __all__")


def top_level_names(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, DEFINITION):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.If):
            names |= top_level_names(node.body) | top_level_names(node.orelse)
    return names
