"""A stage file is the old one or the whole new one, whatever happens while it is written."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prismaquant.errors import Error, NumericError
from prismaquant.files import evaluation, manifest, plan, record, sensitivity

FILES = Path(__file__).parents[2] / "data" / "files" / "0.1.0"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (evaluation, "evaluation.json"),
        (manifest, "manifest.json"),
        (plan, "recipe.json"),
        (sensitivity, "sensitivity.safetensors"),
    ],
)
def test_what_is_written_is_what_is_read(kind: Any, name: str, tmp_path: Path) -> None:
    source = FILES / name
    read = kind.read(source)
    path = tmp_path / "new" / "folder" / source.name
    kind.write(path, read)
    assert kind.read(path) == read
    kind.write(path, read)  # over itself
    assert [each.name for each in path.parent.iterdir()] == [source.name]
    if kind is sensitivity:
        for linear, rows in read.fisher_rows.items():
            assert (kind.read(path).fisher_rows[linear] == rows).all()


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_the_old_file_stays(step: str, failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stage.json"
    record.write_atomic(path, b"old")

    def fail(*arguments: object) -> None:
        raise failure

    monkeypatch.setattr(os, step, fail)
    expected = Error if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected) as caught:
        record.write_atomic(path, b"new, and longer")
    if isinstance(failure, OSError):
        assert str(caught.value) == f"{path}: cannot be written (No space left on device)"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Error, match=r"file.stage\.json: cannot be written"):
        record.write_atomic(tmp_path / "file" / "stage.json", b"")


def test_the_file_can_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    before = os.umask(0o022)
    try:
        record.write_atomic(path, b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_cannot_hold_are_refused_by_name(value: float, tmp_path: Path) -> None:
    read = plan.read(FILES / "recipe.json")
    bad = replace(read, units=(*read.units[:2], replace(read.units[2], price=value), *read.units[3:]))
    with pytest.raises(NumericError, match=r"\$\.units\[2\]\.price"):
        plan.write(tmp_path / "recipe.json", bad)
    assert not list(tmp_path.iterdir())
