"""`parse`: a name with options becomes the files of a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prismaquant.errors import DataError
from prismaquant.streaming.sources import parse
from support.texts import write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.jsonl", "train/one.txt", "deep/train.2/x.txt", "test-00000.jsonl", "training.txt"):
        write(tmp_path / "data" / name, "text")
    write(tmp_path / "data" / "ids.npy", np.arange(4))
    write(tmp_path / "data" / "notes.md", "not data")
    return tmp_path / "data"


def names(spec: str, base: Path) -> list[str]:
    return [str(path.relative_to(base)) for path in parse(spec).files]


def test_a_file_is_a_source(folder: Path) -> None:
    source = parse(folder / "b.txt")
    assert (source.files, source.windows, source.weight) == ((folder / "b.txt",), None, 1.0)


def test_a_folder_is_all_that_can_be_read_below_it_sorted(folder: Path) -> None:
    assert names(str(folder), folder) == [
        "a.jsonl",
        "b.txt",
        "deep/train.2/x.txt",
        "ids.npy",
        "test-00000.jsonl",
        "train/one.txt",
        "training.txt",
    ]


def test_a_split_is_chosen_by_the_name_of_files_and_folders(folder: Path) -> None:
    assert names(f"{folder}:split=train", folder) == ["deep/train.2/x.txt", "train/one.txt"]
    assert names(f"{folder}:split=test", folder) == ["test-00000.jsonl"]


def test_options(folder: Path) -> None:
    source = parse(f"{folder}:n=12,split=train")
    assert (source.name, source.windows, len(source.files)) == (str(folder), 12, 2)
    assert parse(f"{folder / 'b.txt'}:weight=0.5").weight == 0.5


def test_a_name_that_exists_is_a_path(tmp_path: Path) -> None:
    odd = write(tmp_path / "a:n=3.txt", "text")
    assert parse(odd).files == (odd,)
    assert parse(f"{odd}:n=2").windows == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("n=0", "n is 0; n is a number of windows"),
        ("n=many", "n is many"),
        ("n=-1", "n is -1"),
        ("weight=0", "weight is 0; a weight is a positive number"),
        ("weight=inf", "weight is inf"),
        ("weight=heavy", "weight is heavy"),
        ("n=3,weight=2", "has n and weight"),
        ("n=3,n=4", "the option 'n=4' cannot be understood"),
        ("seed=3", "the option 'seed=3' cannot be understood; write PATH:n=K,weight=W,split=NAME"),
        ("n=", "the option 'n=' cannot be understood"),
        ("split=valid", "has no file of the split 'valid'"),
    ],
)
def test_malformed_options_are_refused(folder: Path, options: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(f"{folder}:{options}")


def test_what_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"c\.txt: there is no such file"):
        parse(f"{folder / 'c.txt'}:n=3")
    with pytest.raises(DataError, match=r"b\.txt:3: there is no such file"):
        parse(f"{folder / 'b.txt'}:3")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"is a folder without \.txt, \.jsonl and \.npy files"):
        parse(tmp_path / "empty")
