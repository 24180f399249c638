"""A bad argument is refused before anything is written, with its name, the axis, what was got and what is accepted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from prismaquant.codec import Quantized, get_codec
from prismaquant.errors import ArgumentError, Error, FormatError, MissingExtraError, NumericError, ShapeError
from prismaquant.formats import get_scheme
from prismaquant.solver import solve
from prismaquant.types import Array
from support.formats import formats_for

FORMATS = formats_for(64)
GOOD = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)


class Elsewhere:
    """A tensor that says it is on a device of type ``kind``, and must not be asked for its memory."""

    def __init__(self, kind: int) -> None:
        self.kind, self.shape = kind, (2, 64)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.kind, 0)

    def __dlpack__(self) -> object:
        raise AssertionError("asked for memory of another device")


class Raising(Elsewhere):
    """A tensor on the CPU that refuses to be lent."""

    def __dlpack__(self) -> object:
        raise BufferError("not today")


def odd_strides(dtype: type) -> Array:
    """A field of packed records: 5 bytes from one number to the next."""
    record = np.zeros(2 * 64, dtype=[("byte", "u1"), ("number", dtype)])
    return record["number"].reshape(2, 64)


def misaligned(dtype: type) -> Array:
    size = np.dtype(dtype).itemsize
    return np.zeros(2 * 64 * size + 1, np.uint8)[1:].view(dtype).reshape(2, 64)


NOT_MATRICES = {
    "no axes": (np.array(1, np.float32), ShapeError, r"2 axes \(rows, columns\), got shape \(\)"),
    "one axis": (GOOD[0], ShapeError, r"2 axes \(rows, columns\), got shape \(64,\)"),
    "float64": (
        GOOD.astype(np.float64),
        TypeError,
        "dtype float64 is not supported; accepted are float32, float16 and",
    ),
    "int8": (GOOD.astype(np.int8), TypeError, "dtype int8 is not supported; accepted are"),
    "complex": (GOOD.astype(np.complex64), TypeError, "dtype complex64 is not supported"),
    "objects": (GOOD.astype(object), TypeError, "dtype object is not supported"),
    "float8": (GOOD.astype(ml_dtypes.float8_e4m3fn), TypeError, "dtype float8_e4m3fn is not supported"),
    "swapped bytes": (GOOD.astype(">f4"), TypeError, "dtype float32 with swapped bytes is not supported"),
    "a list": (GOOD.tolist(), TypeError, r"expected a numpy array or an object with __dlpack__ \(.*\), got list"),
    "None": (None, TypeError, "expected a numpy array or an object with __dlpack__ .*, got NoneType"),
    "a GPU tensor": (Elsewhere(2), TypeError, r"not in CPU memory \(DLPack device type 2\); call \.cpu\(\) first"),
    "a refusing tensor": (Raising(1), TypeError, r"the tensor cannot be borrowed \(not today\)"),
    "odd strides": (odd_strides(np.float32), ShapeError, r"stride of axis 1 \(5 bytes\) is not a multiple of the item"),
    "misaligned": (misaligned(np.float32), ValueError, r"not aligned to its item size \(4 bytes\); pass a copy"),
}


@pytest.mark.parametrize("name", NOT_MATRICES)
def test_what_is_no_matrix_is_refused_by_every_function(name: str) -> None:
    thing, error, message = NOT_MATRICES[name]
    codec = get_codec("nvfp4")
    quantized = codec.encode(GOOD)
    with pytest.raises(error, match=f"^weight: .*{message}"):
        codec.encode(thing)
    with pytest.raises(error, match=f"^weight: (.*{message}|shape .*, expected)"):
        codec.squared_error(thing, quantized)
    with pytest.raises(error, match=f"^weight: .*{message}"):
        solve(thing, "nvfp4")
    if thing is not None:  # for `out`, None asks for a new array
        with pytest.raises((error, ShapeError), match=f"^out: (.*{message}|shape)"):
            codec.decode(quantized, out=thing)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_values_that_no_format_stores_are_counted(format: str, dtype: type) -> None:
    weight = GOOD.astype(dtype)
    weight[0, 9], weight[1, 0], weight[1, 63] = -np.inf, np.nan, np.inf
    message = "^weight: 1 NaN and 2 infinite values, the first at row 0, column 9$"
    for scale in (None, 4.0) if format == "nvfp4" else (None,):
        with pytest.raises(NumericError, match=message):
            get_codec(format).encode(weight, global_scale=scale)
        with pytest.raises(NumericError, match=message):
            solve(weight, format, global_scale=scale)


@pytest.mark.parametrize(("format", "group"), [("nvfp4", 16), ("mxfp4", 32), ("mxfp8_e4m3", 32)])
def test_columns_must_be_a_multiple_of_the_group(format: str, group: int) -> None:
    message = rf"^weight: columns \(axis 1\) = 40 is not a multiple of the group size {group} of {format}$"
    with pytest.raises(ShapeError, match=message):
        get_codec(format).encode(GOOD[:, :40])
    with pytest.raises(ShapeError, match=message):
        solve(GOOD[:, :40], format)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e39, 1e-46])
def test_a_global_scale_must_be_positive_and_finite_in_float32(scale: float) -> None:
    message = "^global_scale is .*, expected a positive finite number$"
    quantized = get_codec("nvfp4").encode(GOOD)
    with pytest.raises(NumericError, match=message):
        get_codec("nvfp4").encode(GOOD, global_scale=scale)
    with pytest.raises(NumericError, match=message):
        solve(GOOD, "nvfp4", global_scale=scale)
    with pytest.raises(NumericError, match=message):
        get_codec("nvfp4").decode(replace(quantized, global_scale=scale))


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "nvfp4"])
def test_a_global_scale_for_a_format_without_one(format: str) -> None:
    with pytest.raises(ArgumentError, match=f"^global_scale: 2.0 was given, but {format} has none$"):
        get_codec(format).encode(GOOD, global_scale=2.0)


def test_unknown_names_list_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(FormatError, match=r"unknown format 'NVFP4'; known: bf16, .*; did you mean 'nvfp4'\?"):
        get_codec("NVFP4")
    with pytest.raises(FormatError, match=r"unknown format 'ternary'; known: bf16, fp16, fp8_e4m3_block, .*, nvfp4$"):
        get_codec("ternary")
    with pytest.raises(FormatError, match="unknown format None; known: "):
        get_codec(None)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"unknown scale rule 'max'; known: amax, .*sweep; did you mean 'amax'\?"):
        get_codec("nvfp4").encode(GOOD, scale_rule="max")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"unknown scheme 'nvfp4a16'; .*did you mean 'NVFP4A16'\?"):
        get_scheme("nvfp4a16")


def test_a_matrix_of_another_format() -> None:
    quantized = get_codec("mxfp4").encode(GOOD)
    for call in (get_codec("nvfp4").decode, lambda q: get_codec("nvfp4").squared_error(GOOD, q)):
        with pytest.raises(FormatError, match=r"^quantized: is in format mxfp4, this codec is for nvfp4$"):
            call(quantized)


BROKEN = {
    "codes cut off": ({"codes": np.zeros((2, 31), np.uint8)}, ShapeError, "codes is 2 x 31, expected 2 x 32"),
    "codes of 16 bits": (
        {"codes": np.zeros((2, 32), np.uint16)},
        ShapeError,
        "codes: expected a .* array of uint8, got",
    ),
    "codes with one axis": ({"codes": np.zeros(64, np.uint8)}, ShapeError, "codes: .* two-dim.* uint8 with 1 axes"),
    "codes as a list": ({"codes": [[0] * 32] * 2}, TypeError, "codes: numpy.ndarray"),
    "scales cut off": ({"scales": np.zeros((1, 4), np.uint8)}, ShapeError, "scales is 1 x 4, expected 2 x 4"),
    "scales of floats": ({"scales": np.zeros((2, 4))}, ShapeError, "scales: expected .* of uint8, got float64 with 2"),
    "no scales": ({"scales": None}, ShapeError, "scales: None was given, but nvfp4 has block scales"),
    "another shape": ({"shape": (3, 64)}, ShapeError, "codes is 2 x 32, expected 3 x 32"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_quantized_matrix_is_not_decoded(name: str) -> None:
    change, error, message = BROKEN[name]
    codec = get_codec("nvfp4")
    broken = replace(codec.encode(GOOD), **change)
    out = np.full(broken.shape, 7, np.float32)
    with pytest.raises(error, match=message):
        codec.decode(broken, out=out)
    assert (out == 7).all()
    with pytest.raises(error, match=message if name != "another shape" else "codes is 2 x 32, expected 3 x 32"):
        codec.squared_error(np.zeros(broken.shape, np.float32), broken)


@pytest.mark.parametrize("make", [odd_strides, misaligned])
def test_codes_that_cannot_be_read_in_place(make: Any) -> None:
    with pytest.raises(ValueError, match=r"^codes: .*item size"):
        get_codec("bf16").decode(Quantized("bf16", (2, 64), make(np.uint16), None, None))


def test_outputs_that_cannot_be_written() -> None:
    codec = get_codec("nvfp4")
    quantized = codec.encode(GOOD)
    frozen = np.zeros_like(GOOD)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out: the array is read-only$"):
        codec.decode(quantized, out=frozen)
    with pytest.raises(ShapeError, match=r"^out: shape \(2, 63\), expected \(2, 64\)$"):
        codec.decode(quantized, out=np.zeros((2, 63), np.float32))
    with pytest.raises(TypeError, match=r"^out: dtype float64 is not supported; "):
        codec.decode(quantized, out=np.zeros((2, 64), np.float64))
    message = r"^dtype: 'float64' is not supported; use 'float32', 'bfloat16' or 'float16'$"
    with pytest.raises(ArgumentError, match=message):
        codec.decode(quantized, dtype="float64")  # type: ignore[arg-type]


def test_bfloat16_output_without_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = get_codec("nvfp4")
    quantized = codec.encode(GOOD)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(
        MissingExtraError, match=r"^dtype: numpy has no bfloat16, .*; pip install ml_dtypes, or give out="
    ):
        codec.decode(quantized, dtype="bfloat16")
    assert codec.decode(quantized, dtype="float16").dtype == np.float16


def test_bits_of_no_weights() -> None:
    with pytest.raises(ShapeError, match=r"^shape: 0 x 16 holds no weights$"):
        get_codec("nvfp4").bits_per_weight((0, 16))


def test_errors_of_the_compiled_module_are_those_of_the_package() -> None:
    with pytest.raises(ShapeError) as caught:
        get_codec("nvfp4").encode(GOOD[:, :40])
    assert isinstance(caught.value, (Error, ValueError))
    assert caught.value.exit_code == 2
    assert caught.value.as_dict()["type"] == "ShapeError"
    with pytest.raises(ArithmeticError):
        get_codec("nvfp4").encode(GOOD * np.float32(np.inf))


@pytest.mark.skipif(not hasattr(signal, "SIGSEGV"), reason="signals of POSIX")
def test_no_bad_argument_ends_the_process() -> None:
    """Everything above at once in a process of its own, whose end is looked at."""
    program = """
import itertools, numpy as np
from prismaquant import _core
from prismaquant.solver.linalg import scipy_linalg
things = [None, 0, -1, 1 << 70, 1.5, "x", b"", [], {}, object(), np.zeros(0), np.zeros((2, 32), np.float32),
          np.zeros((0, 0), np.float32), np.zeros((2, 16), np.uint8), np.zeros((2, 2), np.uint8), np.float32(1), "nvfp4"]
refused = 0
plain = {_core.shared_global_scale: 3, _core.format_info: 1, _core.stored_bytes: 3, _core.why_not: 2,
         _core.storage: 3, _core.element_values: 1, _core.TensorView: 2,
         _core.TensorView(things[11], "w").with_last: 1, _core.TensorView(things[11], "w").at: 1}
for function, arity in plain.items():
    for arguments in itertools.product(things, repeat=arity):
        try:
            function(*arguments)
        except (TypeError, ValueError):
            refused += 1
with scipy_linalg() as linalg:
    pass
known = dict(cross_gram=None, pooled_gram=None, pooled_tokens=0, importance=None, damping=None, output_damping=None)
def solve(weight, format, stages, global_scale, gram, tokens, output_gram, memory_limit, linalg, threads):
    return _core.solve(weight, format, stages, global_scale=global_scale, gram=gram, tokens=tokens,
                       output_gram=output_gram, output_tokens=1, memory_limit=memory_limit, linalg=linalg,
                       threads=threads, **known)
for function, good in (
    (_core.encode, [things[11], "nvfp4", "amax", None, 1, things[13].copy(), things[14].copy(), None]),
    (solve, [things[11], "nvfp4", "best", None, np.eye(32, dtype=np.float32), 1, None, 0, linalg, 1]),
    (_core.decode, [things[13], things[14], "nvfp4", 1.0, things[11].copy(), 1]),
    (_core.squared_error, [things[11], things[13], things[14], "nvfp4", 1.0, 1]),
    (_core.subtract, [things[11], things[11].copy()]),
    (_core.allocate, [[[1]], [[1.0]], 9]),
):
    function(*good)
    for i, j in itertools.combinations(range(len(good)), 2):
        for one, other in itertools.product(things, repeat=2):
            arguments = list(good)
            arguments[i], arguments[j] = one, other
            try:
                function(*arguments)
            except Exception:
                refused += 1
print(refused)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=False
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 1000
