"""Codecs over numpy arrays: what is stored, any layout and dtype in, any layout and dtype out."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from prismaquant.codec import Quantized, get_codec
from prismaquant.formats import format_info, get_scheme, list_formats, list_schemes, stored_bytes
from prismaquant.types import Array

RULES = ("amax", "sweep")
ROWS, COLUMNS = 130, 160  # more than one block of every format, blocks of 128 cut off on both axes

#: Format -> dtype and shape of codes, dtype and shape of scales, of a ROWS x COLUMNS matrix.
STORED = {
    "nvfp4": (np.uint8, (130, 80), np.uint8, (130, 10)),
    "mxfp4": (np.uint8, (130, 80), np.uint8, (130, 5)),
    "mxfp8_e4m3": (np.uint8, (130, 160), np.uint8, (130, 5)),
    "fp8_e4m3_channel": (np.uint8, (130, 160), np.uint16, (130, 1)),
    "fp8_e4m3_tensor": (np.uint8, (130, 160), np.uint16, (1, 1)),
    "fp8_e4m3_block": (np.uint8, (130, 160), np.uint16, (2, 2)),
    "bf16": (np.uint16, (130, 160), None, None),
    "mxfp6_e2m3": (np.uint8, (130, 120), np.uint8, (130, 5)),
    "mxfp6_e3m2": (np.uint8, (130, 120), np.uint8, (130, 5)),
    "mxfp8_e5m2": (np.uint8, (130, 160), np.uint8, (130, 5)),
    "mxint8": (np.uint8, (130, 160), np.uint8, (130, 5)),
    "fp8_e4m3_token": (np.uint8, (130, 160), np.float32, (130, 1)),
    "fp8_e5m2_channel": (np.uint8, (130, 160), np.uint16, (130, 1)),
    "fp8_e5m2_tensor": (np.uint8, (130, 160), np.uint16, (1, 1)),
    "fp8_e5m2_block": (np.uint8, (130, 160), np.uint16, (2, 2)),
    "fp8_e5m2_token": (np.uint8, (130, 160), np.float32, (130, 1)),
    "int8_channel": (np.uint8, (130, 160), np.uint16, (130, 1)),
    "int8_token": (np.uint8, (130, 160), np.float32, (130, 1)),
    "int4_g32": (np.int32, (130, 20), np.uint16, (130, 5)),
    "int4_g32_asym": (np.int32, (130, 20), np.uint16, (130, 5)),
    "fp16": (np.uint16, (130, 160), None, None),
}
#: Format -> dtype and shape of extra words, where it has them.
EXTRA = {"int4_g32_asym": (np.int32, (17, 5))}
FORMATS = tuple(STORED)
#: Their groups do not divide COLUMNS; the tests of the codec (tests/python/codec) go over all formats.
OTHERS = {"int4_g64", "int4_g128", "int4_g64_asym", "int4_g128_asym", "nf4", "nf4_double"}


@pytest.fixture(scope="module")
def weight() -> Array:
    rng = np.random.default_rng(7)
    return (rng.standard_normal((ROWS, COLUMNS)) * 2.0 ** rng.integers(-12, 3, (ROWS, 1))).astype(np.float32)


def assert_same(one: Quantized, other: Quantized) -> None:
    assert (one.format, one.shape, one.global_scale) == (other.format, other.shape, other.global_scale)
    np.testing.assert_array_equal(one.codes, other.codes)
    assert (one.scales is None) == (other.scales is None)
    if one.scales is not None:
        np.testing.assert_array_equal(one.scales, other.scales)
    assert (one.extra is None) == (other.extra is None)
    if one.extra is not None:
        np.testing.assert_array_equal(one.extra, other.extra)


def inside(shape: tuple[int, int], place: tuple[slice, slice], dtype: type = np.float32) -> tuple[Array, Array]:
    """A buffer of ``shape`` filled with 99, and the part of it at ``place``."""
    buffer = np.full(shape, 99, dtype)
    return buffer, buffer[place]


def layouts(dtype: type = np.float32) -> dict[str, tuple[Array, Array]]:
    """Name -> buffer and a ROWS x COLUMNS view of it."""
    all_, back = slice(None), slice(None, None, -1)
    transposed = np.full((COLUMNS, ROWS), 99, dtype)
    return {
        "column by column": (transposed, transposed.T),
        "every third column": inside((ROWS, 3 * COLUMNS), (all_, slice(1, None, 3)), dtype),
        "every second row, from below": inside((2 * ROWS, COLUMNS), (slice(None, None, -2), all_), dtype),
        "from the right": inside((ROWS, COLUMNS), (all_, back), dtype),
        "the middle of a larger one": inside((ROWS + 5, COLUMNS + 3), (slice(2, -3), slice(1, -2)), dtype),
    }


def test_the_formats_are_those_of_this_test() -> None:
    assert {*FORMATS, *OTHERS} == set(list_formats())
    assert not OTHERS & set(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_stored(weight: Array, format: str) -> None:
    codes, codes_shape, scales, scales_shape = STORED[format]
    quantized = get_codec(format).encode(weight)
    assert (quantized.format, quantized.shape) == (format, (ROWS, COLUMNS))
    assert (quantized.codes.dtype, quantized.codes.shape) == (codes, codes_shape)
    if scales is None:
        assert quantized.scales is None
    else:
        assert quantized.scales is not None
        assert (quantized.scales.dtype, quantized.scales.shape) == (scales, scales_shape)
    assert (quantized.global_scale is not None) == format_info(format).has_global_scale == (format == "nvfp4")
    size = quantized.codes.nbytes + (0 if quantized.scales is None else quantized.scales.nbytes)
    assert (quantized.extra is not None) == (format in EXTRA)
    if quantized.extra is not None:
        assert (quantized.extra.dtype, quantized.extra.shape) == EXTRA[format]
        size += quantized.extra.nbytes
    size += 4 if format == "nvfp4" else 0
    assert quantized.nbytes == size
    assert get_codec(format).bits_per_weight((ROWS, COLUMNS)) == pytest.approx(8 * size / weight.size, abs=0)
    assert f"{format}, {ROWS} x {COLUMNS}" in repr(quantized)


@pytest.mark.parametrize("name", list_schemes())
def test_stored_bytes_of_a_scheme_are_those_of_its_tensors(weight: Array, name: str) -> None:
    scheme = get_scheme(name)
    input_scale = 4 if scheme.input_scale else 0
    whole = weight[:, : COLUMNS // 128 * 128]  # of blocks of every scheme
    assert stored_bytes(scheme, *whole.shape) == get_codec(scheme.weight_format).encode(whole).nbytes + input_scale


def test_a_block_by_hand() -> None:
    row = np.array([[6, -6, 0.5, -0.5, 1, 1.5, 2, 3, 4, -4, 5, 2.5, 0.25, 0.75, 0, -0.0]], np.float32)
    quantized = get_codec("nvfp4").encode(row, scale_rule="amax", global_scale=1.0)
    assert quantized.scales is not None
    assert quantized.scales.tolist() == [[0x38]]  # E4M3 of 1
    # Ties go to the even code: 5 -> 4, 2.5 -> 2, 0.25 -> 0, 0.75 -> 1. The even column is in the low nibble.
    assert quantized.codes.tobytes().hex() == "f7913254e6462080"
    assert get_codec("nvfp4").decode(quantized).tolist() == [[6, -6, 0.5, -0.5, 1, 1.5, 2, 3, 4, -4, 4, 2, 0, 1, 0, 0]]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rule", RULES)
def test_every_layout_gives_the_bytes_of_the_dense_copy(weight: Array, format: str, rule: str) -> None:
    codec = get_codec(format)
    expected = codec.encode(weight, scale_rule=rule)
    error = codec.squared_error(weight, expected)
    for name, (_, view) in layouts().items():
        view[:] = weight
        assert not view.flags.c_contiguous, name
        assert_same(codec.encode(view, scale_rule=rule), expected)
        assert codec.squared_error(view, expected) == error, name


@pytest.mark.parametrize("format", FORMATS)
def test_a_broadcast_row_is_a_matrix_of_equal_rows(weight: Array, format: str) -> None:
    broadcast = np.broadcast_to(weight[3], (5, COLUMNS))
    assert broadcast.strides == (0, 4)
    assert_same(get_codec(format).encode(broadcast), get_codec(format).encode(broadcast.copy()))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bit_weights_count_with_their_exact_values(weight: Array, format: str, dtype: type) -> None:
    narrow = weight.astype(dtype)
    codec = get_codec(format)
    expected = codec.encode(narrow.astype(np.float32))
    assert_same(codec.encode(narrow), expected)
    assert_same(codec.encode(np.asfortranarray(narrow)), expected)
    assert codec.squared_error(narrow, expected) == codec.squared_error(narrow.astype(np.float32), expected)


@pytest.mark.parametrize("format", FORMATS)
def test_decode_into_any_layout_writes_the_matrix_and_nothing_else(weight: Array, format: str) -> None:
    codec = get_codec(format)
    quantized = codec.encode(weight)
    for dtype in (np.float32, ml_dtypes.bfloat16):
        expected = codec.decode(quantized, dtype=np.dtype(dtype).name)
        assert expected.dtype == dtype
        for name, (buffer, view) in layouts(dtype).items():
            assert codec.decode(quantized, out=view) is view
            np.testing.assert_array_equal(view, expected, err_msg=name)
            view[:] = 99
            assert (buffer == 99).all(), name


@pytest.mark.parametrize("format", FORMATS)
def test_codes_and_scales_may_have_any_layout(weight: Array, format: str) -> None:
    codec = get_codec(format)
    quantized = codec.encode(weight)
    scales = None if quantized.scales is None else np.asfortranarray(quantized.scales)
    extra = None if quantized.extra is None else np.asfortranarray(quantized.extra)
    codes = np.asfortranarray(quantized.codes)
    other = Quantized(format, quantized.shape, codes, scales, global_scale=quantized.global_scale, extra=extra)
    np.testing.assert_array_equal(codec.decode(other), codec.decode(quantized))


@pytest.mark.parametrize("format", FORMATS)
def test_bfloat16_output_is_the_rounded_float32(weight: Array, format: str) -> None:
    codec = get_codec(format)
    quantized = codec.encode(weight)
    np.testing.assert_array_equal(
        codec.decode(quantized, dtype="bfloat16"), codec.decode(quantized).astype(ml_dtypes.bfloat16)
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rule", RULES)
def test_squared_error_is_that_of_the_decoded_matrix(weight: Array, format: str, rule: str) -> None:
    codec = get_codec(format)
    quantized = codec.encode(weight, scale_rule=rule)
    difference = codec.decode(quantized).astype(np.float64) - weight.astype(np.float64)
    assert codec.squared_error(weight, quantized) == pytest.approx(np.square(difference).sum(), rel=1e-12)
    assert codec.squared_error(codec.decode(quantized), quantized) == 0


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(0, 32), (4, 0), (0, 0)])
def test_empty_matrices_have_one_encoding(format: str, shape: tuple[int, int]) -> None:
    codec = get_codec(format)
    quantized = codec.encode(np.zeros(shape, np.float32))
    assert quantized.codes.size == 0
    if quantized.scales is not None:  # some have scales even then: bfloat16 2^-7, float32 2^-126
        assert (quantized.scales == (2.0**-126 if quantized.scales.dtype == np.float32 else 0x3C00)).all()
    assert codec.decode(quantized).shape == shape
    assert codec.squared_error(np.zeros(shape, np.float32), quantized) == 0


def test_a_given_global_scale_is_kept_as_float32() -> None:
    quantized = get_codec("nvfp4").encode(np.ones((1, 16), np.float32), global_scale=0.1)
    assert quantized.global_scale == float(np.float32(0.1))
