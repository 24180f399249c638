"""The notebooks of ``examples/notebooks`` run from a fresh kernel, and show what they were committed with."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[3] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
#: Makes the outputs anew: run in the folder of the notebooks.
COMMAND = "run: jupyter execute --inplace"
#: Notebooks whose numbers are not the same everywhere: sums that torch makes, and times.
INEXACT = {"solvers"}
NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def outputs(notebook: Any) -> list[list[Any]]:
    """The outputs of each code cell."""
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: list[Any]) -> str:
    return "".join(output.text for output in cell if output.output_type == "stream" and output.name == "stdout")


def shown(cell: list[Any], kind: str) -> list[str]:
    return [output.data[kind] for output in cell if kind in output.get("data", {})]


def words(text: str) -> str:
    return NUMBER.sub("", text)


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def executed(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after a run; a cell that raises ends it with that error."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        environment.delenv("MPLBACKEND", raising=False)  # the kernel's own draws into the notebook
        notebook = read(path)
        resources = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return notebook


def test_there_are_notebooks() -> None:
    assert {path.name for path in NOTEBOOKS} == {"codecs.ipynb", "solvers.ipynb"}


def test_it_shows_what_it_was_committed_with(path: Path, executed: Any) -> None:
    committed, found = outputs(read(path)), outputs(executed)
    for old, new in zip(committed, found, strict=True):
        texts, pages = (printed(old), printed(new)), (shown(old, "text/html"), shown(new, "text/html"))
        if path.stem in INEXACT:
            assert words(texts[0]) == words(texts[1]), COMMAND
            assert numbers(texts[1]) == pytest.approx(numbers(texts[0]), rel=0.05, abs=0.02), COMMAND
            assert [*map(words, pages[0])] == [*map(words, pages[1])], COMMAND
        else:
            assert texts[0] == texts[1], COMMAND
            assert pages[0] == pages[1], COMMAND
        assert len(shown(old, "image/png")) == len(shown(new, "image/png"))
    pictures = [base64.b64decode(picture) for cell in found for picture in shown(cell, "image/png")]
    assert len(pictures) >= 3
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 5000 for picture in pictures)
    assert len([page for cell in found for page in shown(cell, "text/html")]) >= 3


def test_no_cell_warns(executed: Any) -> None:
    assert [o.text for cell in outputs(executed) for o in cell if o.get("name") == "stderr"] == []


def test_it_is_small_and_knows_no_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 300_000
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"/(home|root|work|tmp|usr)/", without_pictures)
