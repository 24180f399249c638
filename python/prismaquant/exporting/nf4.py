"""`write_nf4`: a plain folder with every Linear in NF4 with double quantization, as bitsandbytes stores it.

Needs no calibration and makes no choices: it is what mixed folders are compared with. Source of the layout:
bitsandbytes `QuantState.as_dict(packed=True)`, transformers `BitsAndBytesConfig`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prismaquant.codec import Quantized, get_codec
from prismaquant.errors import ModelError
from prismaquant.exporting import config, copy, shards
from prismaquant.exporting.checksums import write_checksums
from prismaquant.exporting.publish import publishing
from prismaquant.progress import Event, Progress, silent

if TYPE_CHECKING:
    from prismaquant.model import Linear, Model
    from prismaquant.types import Array

__all__ = ["write_nf4"]

_FORMAT = "nf4_double"
_BLOCK = 64
_RUN = 256  # block scales that are quantized together

_STATE = "weight.quant_state.bitsandbytes__nf4"

#: Room for the JSON of a Linear. Shards are laid out before its ``nested_offset`` is known; readers skip the spaces.
_STATE_BYTES = 256


def write_nf4(
    model: Model,
    out: Path,
    *,
    force: bool = False,
    shard_size: int = 5 * 10**9,
    threads: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Write ``model`` to the folder ``out``. What belongs to no unit stays, and a weight that is no number of blocks.

    Raises
    ------
    ModelError
        The model has experts: readers take them for no Linears, so most of the model would stay as it is.
    RefusedError
        ``out`` exists, is locked or does not fit on the disk.
    NumericError
        A weight to be quantized has a NaN or an infinity.
    """
    for unit in model.units:
        if unit.experts:
            raise ModelError(
                "bitsandbytes quantizes Linears only, so experts would stay as they are",
                where=f"{model.path}: {unit.name}",
                hint="quantize them to NVFP4A16 or MXFP4A16",
            )
    linears = [linear for linear in model.linears() if linear.rows * linear.columns % _BLOCK == 0]
    quantized = {linear.weight.name for linear in linears}
    kept = [name for name in model.tensors if name not in quantized]
    layout = shards.lay_out(_entries(model, kept, linears), shard_size)
    document = {**config.with_dtype(model.config), config.KEY: _section(model, kept)}
    documents = {
        config.FILE: (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode(),
        shards.INDEX: shards.index(layout),
    }
    nbytes = sum(shard.nbytes for shard in layout) + sum(map(len, documents.values())) + copy.nbytes(model.path)
    with publishing(out, source=model.path, nbytes=nbytes, force=force) as folder:
        with shards.ShardWriter(folder, layout) as writer:
            for name in kept:
                copy.copy_tensor(model, model.tensors[name], writer, name)
            for done, linear in enumerate(linears):
                progress(Event("convert", done, len(linears), linear.name))
                for suffix, data in _parts(model.read_weight(linear), threads).items():
                    writer.write(f"{linear.name}.{suffix}", data)
        for file, content in documents.items():
            (folder / file).write_bytes(content)
        copy.copy_other_files(model.path, folder)
        write_checksums(folder, writer.sums)
    progress(Event("convert", len(linears), len(linears)))
    return out


def _section(model: Model, kept: list[str]) -> dict[str, object]:
    # transformers matches an entry as an expression from the start of a name, or as its end; vLLM compares it with
    # whole names and with their single parts.
    layers = f"{model.architecture.layers}."
    within = [name.rpartition(".")[0] for name in kept if name.startswith(layers) and name.endswith(".weight")]
    matrices = [name for name in within if len(model.tensors[f"{name}.weight"].shape) > 1]
    outside = [entry for name in model.outside for entry in (name, f".*[.]{re.escape(name)}")]
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": config.DTYPE,
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": ["lm_head", *matrices, *outside],
    }


def _entries(model: Model, kept: list[str], linears: list[Linear]) -> Iterator[shards.Entry]:
    for name in kept:
        tensor = model.tensors[name]
        yield shards.Entry(name, tensor.dtype, tensor.shape, tensor.nbytes)
    for linear in linears:
        blocks = linear.rows * linear.columns // _BLOCK
        runs = -(-blocks // _RUN)
        yield shards.Entry(f"{linear.name}.weight", "U8", (blocks * _BLOCK // 2, 1), blocks * _BLOCK // 2)
        yield shards.Entry(f"{linear.name}.weight.absmax", "U8", (blocks,), blocks)
        yield shards.Entry(f"{linear.name}.weight.quant_map", "F32", (16,), 64)
        yield shards.Entry(f"{linear.name}.weight.nested_absmax", "F32", (runs,), 4 * runs)
        yield shards.Entry(f"{linear.name}.weight.nested_quant_map", "F32", (256,), 1024)
        yield shards.Entry(f"{linear.name}.{_STATE}", "U8", (_STATE_BYTES,), _STATE_BYTES)


def _parts(weight: Array, threads: int | None) -> dict[str, Array]:
    """Suffix -> array, of one Linear. Blocks run over the flattened weight, whatever the length of its rows."""
    quantized = get_codec(_FORMAT).encode(
        weight if weight.shape[1] % _BLOCK == 0 else weight.reshape(-1, _BLOCK), threads=threads
    )
    assert quantized.scales is not None
    assert quantized.extra is not None
    offset, nested_absmax = quantized.extra[0, 0], quantized.extra[0, 1:]
    state = {
        "quant_type": "nf4",
        "blocksize": _BLOCK,
        "dtype": config.DTYPE,
        "shape": list(weight.shape),
        "nested_blocksize": _RUN,
        "nested_dtype": "float32",
        "nested_offset": float(offset),
    }
    return {
        "weight": quantized.codes,
        "weight.absmax": quantized.scales,
        "weight.quant_map": get_codec(_FORMAT).values,
        "weight.nested_absmax": nested_absmax,
        "weight.nested_quant_map": _scale_values(),
        _STATE: np.frombuffer(json.dumps(state).encode().ljust(_STATE_BYTES), np.uint8),
    }


@cache
def _scale_values() -> Array:
    """What each code of a block scale stands for: the largest element under every code, in one run."""
    codes, scales = np.full((256, _BLOCK // 2), 0xFF, np.uint8), np.arange(256, dtype=np.uint8).reshape(256, 1)
    extra = np.array([[0, 1]], np.float32)
    quantized = Quantized(_FORMAT, (256, _BLOCK), codes=codes, scales=scales, global_scale=None, extra=extra)
    values: Array = get_codec(_FORMAT).decode(quantized)[:, 0].copy()
    return values
