"""Matrices are read and written where they lie: pointers and strides go through, no copy is made, nothing leaks."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prismaquant.codec import get_codec
from prismaquant.solver import solve
from prismaquant.types import Array
from support.formats import formats_for

FORMATS = formats_for(160)


class Tensor(ctypes.Structure):
    """``DLTensor`` of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Managed(ctypes.Structure):
    """``DLManagedTensor`` of dlpack.h."""


DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(Managed))
Managed._fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", DELETER)]
new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Lender:
    """Lends a float32 matrix by DLPack, and nothing else: no ``shape``, no buffer. Counts how often it comes back."""

    def __init__(self, array: Array, *, strides: bool = True, offset: int = 0, name: bytes = b"dltensor") -> None:
        self.array, self.name, self.exported, self.returned = array, name, 0, 0
        self._shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        self._strides = (ctypes.c_int64 * array.ndim)(*(stride // array.itemsize for stride in array.strides))
        self._managed = Managed(
            Tensor(
                data=array.ctypes.data - offset,
                device=(1, 0),
                ndim=array.ndim,
                code=2,
                bits=8 * array.itemsize,
                lanes=1,
                shape=self._shape,
                strides=self._strides if strides else None,
                byte_offset=offset,
            ),
            None,
            DELETER(self._delete),
        )

    def _delete(self, managed: Any) -> None:
        assert ctypes.addressof(managed.contents) == ctypes.addressof(self._managed)
        self.returned += 1

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self) -> object:
        self.exported += 1
        return new_capsule(ctypes.addressof(self._managed), self.name, None)


@pytest.fixture(scope="module")
def weight() -> Array:
    return np.random.default_rng(29).standard_normal((130, 160)).astype(np.float32)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("options", [{}, {"strides": False}, {"offset": 64}])
def test_a_lent_tensor_is_read_in_place_and_given_back_once(
    weight: Array, format: str, options: dict[str, Any]
) -> None:
    lender, codec = Lender(weight, **options), get_codec(format)
    expected = codec.encode(weight, scale_rule="amax")
    found = codec.encode(lender, scale_rule="amax")
    assert (lender.exported, lender.returned) == (1, 1)
    assert (found.shape, found.global_scale) == (expected.shape, expected.global_scale)
    np.testing.assert_array_equal(found.codes, expected.codes)
    assert codec.squared_error(lender, found) == solve(lender, format, preset="rtn").report.squared_error
    assert lender.exported == lender.returned == 3


def test_strides_of_a_lent_tensor_are_followed(weight: Array) -> None:
    view = weight.T[::-1, ::2]
    padded = np.zeros((160, 80), np.float32)[:, :64]
    padded[:] = view[:, :64]
    for matrix in (view[:, :64], padded):
        found = get_codec("nvfp4").encode(Lender(matrix))
        np.testing.assert_array_equal(found.codes, get_codec("nvfp4").encode(matrix.copy()).codes)


def test_decoding_writes_into_lent_memory(weight: Array) -> None:
    codec, memory = get_codec("fp8_e4m3_block"), np.zeros_like(weight)
    quantized, lender = codec.encode(weight), Lender(memory)
    assert codec.decode(quantized, out=lender) is lender
    assert (lender.exported, lender.returned) == (1, 1)
    np.testing.assert_array_equal(memory, codec.decode(quantized))


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.ones((2, 33), np.float32), {}, r"weight: columns \(axis 1\) = 33"),
        (np.ones(32, np.float32), {}, r"weight: expected at least 2 axes \(rows, columns\), got shape \(32,\)"),
        (np.ones((), np.float32), {}, r"weight: expected at least 2 axes \(rows, columns\), got shape \(\)"),
        (np.ones((2, 32)), {}, "weight: dtype with DLPack code 2 of 64 bits is not supported"),
        (np.full((2, 32), np.nan, np.float32), {}, "weight: 64 NaN"),
    ],
)
def test_a_refused_tensor_is_given_back_once(array: Array, options: dict[str, Any], message: str) -> None:
    lender = Lender(array, **options)
    with pytest.raises((TypeError, ValueError), match=message):
        get_codec("nvfp4").encode(lender)
    assert (lender.exported, lender.returned) == (1, 1)


def test_a_capsule_of_another_kind_is_not_touched() -> None:
    lender = Lender(np.ones((2, 32), np.float32), name=b"another")
    message = r'weight: __dlpack__\(\) returned PyCapsule, expected a capsule "dltensor" or "dltensor_versioned"'
    with pytest.raises(TypeError, match=message):
        get_codec("nvfp4").encode(lender)
    assert lender.returned == 0


class VersionedManaged(ctypes.Structure):
    """``DLManagedTensorVersioned`` of dlpack.h."""


VERSIONED_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(VersionedManaged))
VersionedManaged._fields_ = [
    ("version", ctypes.c_uint32 * 2),
    ("context", ctypes.c_void_p),
    ("deleter", VERSIONED_DELETER),
    ("flags", ctypes.c_uint64),
    ("tensor", Tensor),
]


class VersionedLender(Lender):
    """Lends in the form of DLPack 1 if it is asked for that, and refuses to lend in the older one."""

    def __init__(self, array: Array, *, version: tuple[int, int] = (1, 1), flags: int = 0) -> None:
        super().__init__(array)
        self._versioned = VersionedManaged(
            version, None, VERSIONED_DELETER(self._give_back), flags, self._managed.tensor
        )

    def _give_back(self, managed: Any) -> None:
        self.returned += 1

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None) -> object:
        if max_version is None:
            raise BufferError("version 1 only")
        self.exported += 1
        return new_capsule(ctypes.addressof(self._versioned), b"dltensor_versioned", None)


def test_tensors_of_version_1_are_borrowed_and_given_back(weight: Array) -> None:
    codec, lender = get_codec("nvfp4"), VersionedLender(weight)
    np.testing.assert_array_equal(codec.encode(lender).codes, codec.encode(weight).codes)
    assert (lender.exported, lender.returned) == (1, 1)
    memory = np.zeros_like(weight)
    codec.decode(codec.encode(weight), out=VersionedLender(memory))
    np.testing.assert_array_equal(memory, codec.decode(codec.encode(weight)))


@pytest.mark.parametrize(("flag", "meaning"), [(1, "read-only"), (2, "a copy")])
def test_tensors_that_must_not_be_written(weight: Array, flag: int, meaning: str) -> None:
    codec, memory = get_codec("nvfp4"), np.zeros_like(weight)
    lender = VersionedLender(memory, flags=flag)
    codec.encode(lender)
    with pytest.raises(ValueError, match=r"^out: the array is read-only"):
        codec.decode(codec.encode(weight), out=lender)
    assert lender.exported == lender.returned == 2, meaning
    assert not memory.any()


def test_another_major_version_is_given_back_unread(weight: Array) -> None:
    lender = VersionedLender(weight, version=(2, 0))
    with pytest.raises(TypeError, match=r"weight: __dlpack__\(\) gave version 2 of DLPack, accepted are 1 and"):
        get_codec("nvfp4").encode(lender)
    assert (lender.exported, lender.returned) == (1, 1)


CALLS: dict[str, Callable[[Array], object]] = {
    "encode": lambda view: get_codec("nvfp4").encode(view),
    "solve": lambda view: solve(view, "nvfp4"),
    "squared_error": lambda view: get_codec("mxfp4").squared_error(view, get_codec("mxfp4").encode(view)),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_array_beside_the_result_is_allocated(name: str) -> None:
    view = np.ones((1024, 2048), np.float32)[::2, ::2]
    CALLS[name](view[:1])  # imports
    tracemalloc.start()
    try:
        CALLS[name](view)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.25 * view.nbytes  # NVFP4 is 4.5 of 32 bits


def test_no_memory_of_the_size_of_the_matrix_is_touched() -> None:
    """A matrix of 256 MiB that is one row: a copy, in Python or C++, would show in the resident memory."""
    program = """
import resource, numpy as np
from prismaquant.codec import get_codec
codec = get_codec("nvfp4")
row = np.ones(16384, np.float32)
codec.encode(np.broadcast_to(row, (8, 16384)), scale_rule="amax")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
codec.encode(np.broadcast_to(row, (4096, 16384)), scale_rule="amax")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 64  # the result takes 36 MiB


def test_references_are_given_back(weight: Array) -> None:
    codec = get_codec("nvfp4")
    matrix, out = weight.copy(), weight.copy()
    quantized = codec.encode(matrix)
    counted = (matrix, out, quantized.codes, quantized.scales)
    bad = weight.copy()
    bad[0, 0] = np.nan
    before = [sys.getrefcount(thing) for thing in (*counted, bad)]
    for _ in range(20):
        codec.encode(matrix)
        codec.decode(quantized, out=out)
        codec.squared_error(matrix, quantized)
        solve(matrix, "mxfp4")
        for wrong in (bad, bad[:, 1:]):
            with pytest.raises(ValueError, match="weight"):
                codec.encode(wrong)
        with pytest.raises(ValueError, match="out"):
            codec.decode(quantized, out=out[1:])
    del wrong
    assert [sys.getrefcount(thing) for thing in (*counted, bad)] == before


def test_results_belong_to_the_caller_alone(weight: Array) -> None:
    quantized = get_codec("nvfp4").encode(weight)
    assert quantized.scales is not None
    for array in (quantized.codes, quantized.scales):
        assert array.flags.owndata
        assert array.flags.writeable
    died = [weakref.ref(quantized.codes), weakref.ref(quantized.scales)]
    del array, quantized
    assert [ref() for ref in died] == [None, None]
