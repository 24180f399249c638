"""The fingerprint of a folder that may be quantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prismaquant.errors import ModelError
from prismaquant.files.fingerprint import fingerprint
from prismaquant.model.shards import collect_tensors, read_shards

__all__ = ["folder_fingerprint"]

_SAMPLE = 4096  # bytes of each tensor


def folder_fingerprint(folder: Path) -> str:
    """``"sha256:..."`` of a folder's configuration, headers and samples of its tensors: `Model.fingerprint`.

    `open_model` refuses a quantized folder, and rightly so; for every folder that it opens, the value is the same.

    Raises
    ------
    ModelError
        If ``config.json`` or a shard is missing, truncated or damaged.
    """
    try:
        config = (folder / "config.json").read_bytes()
    except OSError as cause:
        raise ModelError(
            f"has no readable config.json ({cause.strerror})", where=str(folder), hint="give the folder of a model"
        ) from cause
    shards = read_shards(folder)
    headers = [part for shard in shards for part in (shard.header, str(shard.size).encode())]
    samples = []
    for tensor in collect_tensors(shards, folder).values():
        size = min(tensor.nbytes, _SAMPLE)
        offset = tensor.begin + (tensor.nbytes - size) // 2
        samples.append(np.fromfile(folder / tensor.file, np.uint8, size, offset=offset).tobytes())
    return fingerprint([fingerprint([config, *headers]).encode(), *samples])
