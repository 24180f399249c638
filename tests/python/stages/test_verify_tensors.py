"""Tensors of a folder: every way to break them is caught by the rule that is meant for it."""

from __future__ import annotations

import numpy as np
import pytest

from prismaquant.exporting.verify import verify
from support.exported import A16, FP8, KEPT, W4A4, expect
from support.mutations import Mutable, Stored


def _poke(suffix: str, value: int, dtype: str = "u1", position: int = 5):
    """A change of one item of the tensor ``suffix``."""

    def change(folder: Mutable) -> None:
        def apply(tensors: dict[str, Stored]) -> None:
            view = tensors[suffix].view(dtype)
            view[min(position, view.size - 1)] = value

        folder.tensors(apply)

    return change


def _edit(name: str, **fields):
    """A change of dtype, shape or file of the tensor ``name``."""

    def change(folder: Mutable) -> None:
        def apply(tensors: dict[str, Stored]) -> None:
            for field, value in fields.items():
                setattr(tensors[name], field, value)

        folder.tensors(apply)

    return change


def _drop(name: str):
    return lambda folder: folder.tensors(lambda tensors: tensors.pop(name))


def _copy_tensor(name: str, new: str):
    return lambda folder: folder.tensors(lambda tensors: tensors.update({new: tensors[name]}))


def _flip(name: str):
    def change(folder: Mutable) -> None:
        def apply(tensors: dict[str, Stored]) -> None:
            tensors[name].data[7] ^= 0x10

        folder.tensors(apply)

    return change


def _scale_global(*names: str, by: float):
    def change(folder: Mutable) -> None:
        def apply(tensors: dict[str, Stored]) -> None:
            for name in names:
                tensors[name].view("<f4")[:] *= by

        folder.tensors(apply)

    return change


def _swap_nibbles(folder: Mutable) -> None:
    def apply(tensors: dict[str, Stored]) -> None:
        data = tensors[f"{A16}.weight_packed"].data
        data[:] = (data >> 4) | (data << 4)

    folder.tensors(apply)


def _wider(folder: Mutable) -> None:
    def apply(tensors: dict[str, Stored]) -> None:
        tensor = tensors[f"{A16}.weight_packed"]
        rows, columns = tensor.shape
        padded = np.pad(tensor.data.reshape(rows, columns), ((0, 0), (0, 8)))
        tensor.shape, tensor.data = [rows, columns + 8], padded.reshape(-1)

    folder.tensors(apply)


TENSORS = {
    "scales missing": (_drop(f"{A16}.weight_scale"), "tensor-set", "weight_scale: is missing, NVFP4A16 needs it"),
    "input scale missing": (_drop(f"{W4A4}.input_global_scale"), "tensor-set", "is missing, NVFP4 needs it"),
    "input scale in A16": (
        _copy_tensor(f"{A16}.weight_global_scale", f"{A16}.input_global_scale"),
        "tensor-set",
        "input_global_scale: is no tensor of NVFP4A16",
    ),
    "zero point": (
        _copy_tensor(f"{FP8}.weight_scale", f"{FP8}.weight_zero_point"),
        "tensor-set",
        "is no tensor of FP8",
    ),
    "scales as U8": (_edit(f"{A16}.weight_scale", dtype="U8"), "tensor-dtype", "is U8, NVFP4A16 stores F8_E4M3"),
    "codes as I8": (_edit(f"{FP8}.weight", dtype="I8"), "tensor-dtype", "is I8, FP8_DYNAMIC stores F8_E4M3"),
    "scales in one axis": (_edit(f"{FP8}.weight_scale", shape=[64]), "tensor-shape", r"is \[64\], .* stores \[64, 1\]"),
    "global scale without axis": (_edit(f"{A16}.weight_global_scale", shape=[]), "tensor-shape", r"stores \[1\]"),
    "codes too wide": (_wider, "tensor-shape", r"is \[128, 40\], NVFP4A16 stores \[128, 32\]"),
    "FP8 NaN": (_poke(f"{FP8}.weight", 0x7F), "fp8-nan", "down_proj.weight: has 1 NaN codes"),
    "FP8 negative NaN": (_poke(f"{FP8}.weight", 0xFF), "fp8-nan", "down_proj.weight: has 1 NaN codes"),
    "scale zero": (_poke(f"{A16}.weight_scale", 0), "scale", "has 1 of 512 values that are not positive and finite"),
    "scale NaN": (_poke(f"{A16}.weight_scale", 0x7F), "scale", "has 1 of 512 values"),
    "scale negative": (_poke(f"{A16}.weight_scale", 0x80), "scale", "has 1 of 512 values"),
    "row scale zero": (_poke(f"{FP8}.weight_scale", 0, "<u2"), "scale", "has 1 of 64 values"),
    "row scale negative": (_poke(f"{FP8}.weight_scale", 0xBF80, "<u2"), "scale", "has 1 of 64 values"),
    "row scale infinite": (_poke(f"{FP8}.weight_scale", 0x7F80, "<u2"), "scale", "has 1 of 64 values"),
    "global scale negative": (
        _scale_global(f"{A16}.weight_global_scale", by=-1.0),
        "global-scale",
        "has 1 of 1 values",
    ),
    "global scale infinite": (
        _scale_global(f"{A16}.weight_global_scale", by=np.inf),
        "global-scale",
        "has 1 of 1 values",
    ),
    "input scale zero": (_scale_global(f"{W4A4}.input_global_scale", by=0.0), "global-scale", "has 1 of 1 values"),
    "global scales differ": (
        _scale_global(f"{A16}.weight_global_scale", by=2.0),
        "shared-scale",
        "gate_up_proj.weight_global_scale: differs between siblings: gate_proj .*, up_proj",
    ),
    "input scales differ": (
        _scale_global(f"{W4A4}.input_global_scale", by=0.5),
        "shared-scale",
        "qkv_proj.input_global_scale: differs between siblings",
    ),
    "all siblings scaled": (
        _scale_global(f"{A16}.weight_global_scale", f"{A16.replace('gate', 'up')}.weight_global_scale", by=4.0),
        "signal-to-noise",
        "gate_proj: decodes to something else than the source",
    ),
    "nibbles swapped": (_swap_nibbles, "signal-to-noise", "gate_proj: decodes to something else than the source"),
    "one code": (_flip(f"{A16}.weight_packed"), "squared-error", "gate_proj: squared error .*, the manifest has"),
    "one FP8 code": (_flip(f"{FP8}.weight"), "squared-error", "these are not the bytes that were written"),
    "BF16 unit changed": (_flip(f"{KEPT}.weight"), "passthrough", "up_proj.weight: has other bytes than in the source"),
    "norm changed": (_flip("model.norm.weight"), "passthrough", "model.norm.weight: has other bytes"),
    "norm missing": (_drop("model.norm.weight"), "passthrough", "model.norm.weight: is missing, the source has it"),
    "bias missing": (_drop(f"{W4A4}.bias"), "passthrough", "q_proj.bias: is missing"),
    "bias reshaped": (
        _edit(f"{W4A4}.bias", shape=[1, 64]),
        "passthrough",
        r"is BF16 \[1, 64\], in the source BF16 \[64\]",
    ),
    "bias added": (_copy_tensor("model.norm.weight", f"{FP8}.bias"), "extra-tensor", "down_proj.bias: is neither in"),
    "tensor added": (_copy_tensor("model.norm.weight", "model.extra"), "extra-tensor", "model.extra: is neither in"),
    "head scales": (_copy_tensor(f"{FP8}.weight_scale", "lm_head.weight_scale"), "unquantized", "lm_head.weight_scale"),
    "embedding in FP8": (
        _copy_tensor(f"{FP8}.weight", "model.embed_tokens.weight"),
        "unquantized",
        "embed_tokens.weight: is quantized, but no part of a unit",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_broken_tensors_are_caught(broken, mixed_source, case):
    change, rule, text = TENSORS[case]
    change(broken)
    expect(verify(broken.path, source=mixed_source), rule, text)


@pytest.mark.parametrize("case", ["one code", "norm changed", "nibbles swapped"])
def test_what_needs_the_source_is_left_out_without_it(broken, case):
    TENSORS[case][0](broken)
    assert verify(broken.path).ok
