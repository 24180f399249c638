"""Broken stage files give a `StageFileError` that names the file and the place, and never anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prismaquant.errors import StageFileError
from prismaquant.files import evaluation, manifest, plan, sensitivity

FILES = Path(__file__).parents[2] / "data" / "files" / "0.1.0"
READERS = {
    "evaluation.json": evaluation.read,
    "manifest.json": manifest.read,
    "recipe.json": plan.read,
    "sensitivity.safetensors": sensitivity.read,
}
SENSITIVITY = "sensitivity.safetensors"
SOME = "model.layers.1.mlp.up_proj"


def refuse(name: str, path: Path) -> str:
    with pytest.raises(StageFileError) as caught:
        READERS[name](path)
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 3
    return caught.value.message


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "7 bytes": lambda data: data[:7],
    "last bytes": lambda data: data[:-3],
    "half": lambda data: data[: len(data) // 2],
    "first byte": lambda data: data[1:],
    "zeros": lambda data: b"\x00" * len(data),
    "not UTF-8": lambda data: b"\xff" * 100,
    "deep lists": lambda data: b"[" * 100_000,
    "deep objects": lambda data: b'{"schema":' * 100_000,
    "git LFS pointer": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "null": lambda data: b"null",
    "giant header": lambda data: (2**63).to_bytes(8, "little") + data[8:],
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files(name: str, damage: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(DAMAGES[damage]((FILES / name).read_bytes()))
    assert refuse(name, path)


@pytest.mark.parametrize("name", READERS)
def test_a_missing_file_and_a_folder(name: str, tmp_path: Path) -> None:
    assert "no such file" in refuse(name, tmp_path / name).lower()
    (tmp_path / "folder").mkdir()
    assert "directory" in refuse(name, tmp_path / "folder").lower()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("other", READERS)
def test_files_of_another_kind(name: str, other: str) -> None:
    if name != other:
        assert refuse(name, FILES / other)


def edit(name: str, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of the file whose document was changed."""
    path = folder / name
    if name == SENSITIVITY:
        return edit_sensitivity(path, change=change)
    document = json.loads((FILES / name).read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    return path


def edit_sensitivity(
    path: Path,
    change: Callable[[dict[str, Any]], Any] = lambda document: None,
    tensors: Callable[[dict[str, Any]], Any] = lambda tensors: None,
) -> Path:
    stored = load_file(FILES / SENSITIVITY)
    tensors(stored)
    data = (FILES / SENSITIVITY).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    document = json.loads(header["__metadata__"]["prismaquant"])
    change(document)
    save_file(stored, path, metadata={"prismaquant": json.dumps(document)})
    return path


@pytest.mark.parametrize("name", READERS)
def test_another_schema_names_both_and_what_to_do(name: str, tmp_path: Path) -> None:
    path = edit(name, tmp_path, lambda document: document.update(schema=document["schema"][:-1] + "2"))
    with pytest.raises(StageFileError) as caught:
        READERS[name](path)
    assert "/2', expected 'prismaquant." in caught.value.message
    assert "the release of prismaquant that wrote it" in str(caught.value.hint)
    assert "no schema id" in refuse(name, edit(name, tmp_path, lambda document: document.pop("schema")))


@pytest.mark.parametrize("name", READERS)
def test_unknown_fields_and_writers_are_ignored(name: str, tmp_path: Path) -> None:
    path = edit(name, tmp_path, lambda document: document.update(writer=None, added_later={"a": [1]}))
    assert READERS[name](path) == READERS[name](FILES / name)


@pytest.mark.parametrize(
    ("name", "change", "place"),
    [
        ("evaluation.json", lambda d: d["kl"].update(low="0"), "$.kl.low"),
        ("evaluation.json", lambda d: d.update(tokens=0), "$.tokens"),
        ("evaluation.json", lambda d: d.pop("top1"), "`top1`"),
        ("manifest.json", lambda d: d["plan"]["units"][3].update(scheme=None), "$.plan.units[3].scheme"),
        ("manifest.json", lambda d: d["linears"][2].update(bytes=1.5), "$.linears[2].bytes"),
        ("manifest.json", lambda d: d.update(parameters=0), "$.parameters"),
        ("recipe.json", lambda d: d["units"][0].update(linears="all"), "$.units[0].linears"),
        (SENSITIVITY, lambda d: d["units"][1]["candidates"][0]["prices"].update(x=True), "$.units[1].candidates[0]"),
        (SENSITIVITY, lambda d: d["units"][1]["linears"][0].update(input_amax=""), "$.units[1].linears[0].input_amax"),
        (SENSITIVITY, lambda d: d.update(units={}), "$.units"),
        (SENSITIVITY, lambda d: d.update(tokens=-128), "$.tokens"),
    ],
)  # fmt: skip
def test_the_place_inside_the_document_is_named(
    name: str, change: Callable[[dict[str, Any]], Any], place: str, tmp_path: Path
) -> None:
    assert place in refuse(name, edit(name, tmp_path, change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(SOME), "missing"),
        (lambda t: t.update(extra=np.zeros(3, np.float32)), "'extra' is"),
        (lambda t: t.update({SOME: t[SOME].astype(np.float64)}), "F64"),
        (lambda t: t.update({SOME: t[SOME].astype(np.int32)}), "I32"),
        (lambda t: t.update({SOME: t[SOME][:-1]}), "[135]"),
        (lambda t: t.update({SOME: t[SOME][:, None]}), "[136, 1]"),
    ],
    ids=["missing", "extra", "float64", "int32", "short", "two_axes"],
)  # fmt: skip
def test_tensors_that_do_not_belong_to_the_document(
    change: Callable[[dict[str, Any]], Any], words: str, tmp_path: Path
) -> None:
    message = refuse(SENSITIVITY, edit_sensitivity(tmp_path / SENSITIVITY, tensors=change))
    assert words in message
    assert "tensor '" in message


@pytest.mark.parametrize(("dtype", "count"), [("BF16", 272), ("F8_E4M3", 544), ("nonsense", 136)])
def test_tensors_of_types_that_numpy_does_not_have(dtype: str, count: int, tmp_path: Path) -> None:
    data = (FILES / SENSITIVITY).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header[SOME].update(dtype=dtype, shape=[count])
    text = json.dumps(header).encode()
    path = tmp_path / SENSITIVITY
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + int.from_bytes(data[:8], "little") :])
    assert dtype in refuse(SENSITIVITY, path)


def test_a_safetensors_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / SENSITIVITY
    save_file({"weight": np.zeros((2, 2), np.float32)}, path, metadata={"format": "pt"})
    assert "no schema id" in refuse(SENSITIVITY, path)
    save_file({"weight": np.zeros((2, 2), np.float32)}, path, metadata={"prismaquant": '{"a":' * 5000})
    assert "not a JSON document" in refuse(SENSITIVITY, path)
