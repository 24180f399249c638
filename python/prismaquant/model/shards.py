"""Which safetensors files of a folder are the model: the index, or ``model.safetensors``."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from prismaquant.errors import ModelError
from prismaquant.model.document import read_object
from prismaquant.model.headers import Shard, TensorInfo, read_shard

__all__ = ["PICKLES", "collect_tensors", "read_shards"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"

#: Suffixes of files that run code when they are opened.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def read_shards(folder: Path) -> tuple[Shard, ...]:
    """Headers of all shards of the model in ``folder``, by file name.

    Files that the index does not name are no part of the model, as for transformers and vLLM.

    Raises
    ------
    ModelError
        No safetensors weights; index and single file contradict each other; a shard is missing or broken; the index
        lists a tensor that its shard does not have; two shards have the same tensor.
    """
    # lexists: a dangling link of an interrupted download is reported as missing file, not as a folder without weights
    has_single, has_index = os.path.lexists(folder / _SINGLE), os.path.lexists(folder / _INDEX)
    if not has_index:
        if has_single:
            return (read_shard(folder / _SINGLE),)
        raise _no_weights(folder)
    weight_map = _read_index(folder / _INDEX)
    names = sorted(set(weight_map.values()))
    if has_single and _SINGLE not in names:
        raise ModelError(
            f"has both {_SINGLE} and an index of other shards, and programs differ in which of them they load",
            where=str(folder),
            hint="move the one that does not belong to the model out of the folder",
        )
    shards = tuple(read_shard(folder / name) for name in names)
    tensors = collect_tensors(shards, folder)
    for tensor, name in weight_map.items():
        if tensor not in tensors or tensors[tensor].file != name:
            raise ModelError(
                f"lists tensor {tensor!r} in {name}, which does not have it",
                where=str(folder / _INDEX),
                hint="index and shards are of different versions, download the model again",
            )
    return shards


def collect_tensors(shards: tuple[Shard, ...], folder: Path) -> dict[str, TensorInfo]:
    """Tensor name -> where it lies, sorted by name, over all ``shards``; refuses a name that two of them have."""
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for tensor in shard.tensors:
            other = tensors.setdefault(tensor.name, tensor)
            if other is not tensor:
                raise ModelError(
                    f"tensor {tensor.name!r} is in {other.file} and in {shard.name}, which one counts is undefined",
                    where=str(folder),
                    hint="download the model again into an empty folder",
                )
    return dict(sorted(tensors.items()))


def _read_index(path: Path) -> dict[str, str]:
    _, document = read_object(path)
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError("has no weight_map object", where=str(path), hint="download the file again")
    plain: set[str] = set()
    for tensor, name in weight_map.items():
        if isinstance(name, str) and name in plain:
            continue
        if not _is_shard_name(name):
            raise ModelError(
                f"places tensor {tensor!r} in {name!r}, which is not the plain name of a .safetensors file",
                where=str(path),
                hint="shards must lie beside their index; do not use this folder unless you know who made it",
            )
        plain.add(name)
    return weight_map


def _is_shard_name(name: object) -> bool:
    if not isinstance(name, str) or not name.endswith(".safetensors") or not name.isprintable():
        return False
    return name == PurePosixPath(name).name == PureWindowsPath(name).name


def _no_weights(folder: Path) -> ModelError:
    names = sorted(path.name for path in folder.iterdir())
    others = [name for name in names if name.endswith(".safetensors")]
    pickles = [name for name in names if name.endswith(PICKLES)]
    if others:
        message = f"has {_some(others)}, but neither {_SINGLE} nor {_INDEX}"
        hint = f"download {_INDEX} of the same revision, or, if one file is the whole model, name it {_SINGLE}"
    elif pickles:
        message = f"has its weights as pickle files only ({_some(pickles)}), and these can run any code when opened"
        hint = (
            "look for a revision of the model with .safetensors files (on the Hugging Face Hub often refs/pr/1), or, "
            "on a machine where you trust these files, convert them with convert.py of the safetensors project"
        )
    else:
        message = f"has no weights: neither {_SINGLE} nor {_INDEX}"
        hint = "give the folder of a Hugging Face model with safetensors weights"
    return ModelError(message, where=str(folder), hint=hint)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
