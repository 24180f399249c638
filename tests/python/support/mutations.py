"""Ways to break a good folder: `Mutable` opens one for changes to its configuration, index, tensors and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Mutable", "Stored"]

INDEX = "model.safetensors.index.json"


@dataclass
class Stored:
    """One tensor of a shard: everything about it can be changed."""

    dtype: str
    shape: list[int]
    data: np.ndarray  # uint8, one axis
    file: str

    def view(self, dtype: str) -> np.ndarray:
        """The data as another dtype, to be changed in place."""
        return self.data.view(dtype)


class Mutable:
    """A folder whose every part can be broken. Tensors are rewritten without any check, and the index after them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "SHA256SUMS").unlink(missing_ok=True)  # or each change would break that rule, too

    def config(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Apply ``change`` to ``config.json``."""
        self.json("config.json", change)

    def quantization(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Apply ``change`` to its ``quantization_config``."""
        self.config(lambda config: change(config["quantization_config"]))

    def group(self, scheme_format: str, change: Callable[[dict[str, Any]], Any], *, activations: bool = False) -> None:
        """Apply ``change`` to the config group with this format, and with or without quantized activations."""

        def apply(quantization: dict[str, Any]) -> None:
            (group,) = (
                group
                for group in quantization["config_groups"].values()
                if group["format"] == scheme_format and (group["input_activations"] is not None) == activations
            )
            change(group)

        self.quantization(apply)

    def json(self, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """Apply ``change`` to the JSON file ``name``."""
        document = json.loads((self.path / name).read_text())
        change(document)
        (self.path / name).write_text(json.dumps(document))

    def tensors(self, change: Callable[[dict[str, Stored]], Any]) -> None:
        """Apply ``change`` to the tensors of all shards, and write them and their index."""
        tensors: dict[str, Stored] = {}
        for file in sorted(self.path.glob("*.safetensors")):
            raw = file.read_bytes()
            start = 8 + int.from_bytes(raw[:8], "little")
            for name, entry in json.loads(raw[8:start]).items():
                if name != "__metadata__":
                    begin, end = (start + offset for offset in entry["data_offsets"])
                    data = np.frombuffer(raw[begin:end], np.uint8).copy()
                    tensors[name] = Stored(entry["dtype"], entry["shape"], data, file.name)
        change(tensors)
        for file in self.path.glob("*.safetensors"):
            file.unlink()
        for name in {tensor.file for tensor in tensors.values()}:
            _write(self.path / name, {key: tensor for key, tensor in tensors.items() if tensor.file == name})
        total = sum(tensor.data.nbytes for tensor in tensors.values())
        weight_map = {name: tensor.file for name, tensor in tensors.items()}
        document = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (self.path / INDEX).write_text(json.dumps(document))

    def bytes(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Apply ``change`` to the content of the file ``name``."""
        path = self.path / name
        path.write_bytes(change(path.read_bytes()))

    def shard(self) -> str:
        """Name of the first shard."""
        return min(path.name for path in self.path.glob("*.safetensors"))


def _write(path: Path, tensors: dict[str, Stored]) -> None:
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.data.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(t.data.tobytes() for t in tensors.values()))
