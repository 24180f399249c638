"""The codecs give the bytes of the readable numpy twin, on random and adversarial input, and fail where it fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prismaquant.codec import Quantized, get_codec
from prismaquant.errors import Error
from prismaquant.types import Array
from support import numpy_twin as twin

FORMATS = tuple(twin.FORMATS)
RULES = ("amax", "sweep")
LARGEST = float(np.finfo(np.float32).max)


def adversarial() -> dict[str, Array]:
    """Name -> matrix of at most 300 x 288."""
    rng = np.random.default_rng(3)
    signs = rng.choice([-1.0, 1.0], (9, 96))
    bits = rng.integers(0, 1 << 32, (32, 96), dtype=np.uint64).astype(np.uint32).view(np.float32)
    normal = rng.standard_normal((9, 96))
    outliers = np.where(rng.random((9, 96)) < 0.02, 300.0, 1.0) * normal
    matrices = {
        "normal": normal,
        "larger than a block of 128 x 128": rng.standard_normal((300, 288)),
        "every float32": np.where(np.isfinite(bits), bits, 0),
        "subnormal to small": normal * 2.0 ** rng.integers(-149, -110, (9, 1)),
        "near the largest float32": np.clip(1e38 * normal, -LARGEST, LARGEST),
        "only the largest float32": np.full((2, 64), LARGEST),
        "ties of the element grid": rng.integers(-28, 29, (9, 96)) / 4,
        "powers of two": signs * 2.0 ** rng.integers(-20, 20, (9, 96)),
        "mantissas around 1.75, where MX scales step": signs
        * 2.0 ** rng.integers(-3, 3, (9, 1))
        * (1.75 + normal / 1e6),
        "outliers": outliers,
        "one value per block": np.where(np.arange(96) % 16 == 5, normal, 0),
        "zeros of both signs": 0.0 * signs,
        "zero rows between": np.where(np.arange(9)[:, None] % 2 == 0, normal, 0),
        "wide range in a block": signs * 10.0 ** rng.uniform(-8, 8, (9, 96)),
    }
    return {name: matrix.astype(np.float32) for name, matrix in matrices.items()}


ADVERSARIAL = adversarial()


def assert_equal_to_the_twin(weight: Array, format: str, rule: str, global_scale: float | None = None) -> None:
    expected = twin.encode(weight, format, rule, global_scale)
    codec = get_codec(format)
    found = codec.encode(weight, scale_rule=rule, global_scale=global_scale)
    assert found.global_scale == expected.global_scale
    assert found.scales is not None
    assert expected.scales is not None
    np.testing.assert_array_equal(found.scales, expected.scales)
    np.testing.assert_array_equal(found.codes, expected.codes)
    assert_decoded_like_the_twin(found)


def assert_decoded_like_the_twin(quantized: Quantized) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 both give infinity, for NaN codes NaN
        expected = twin.decode(quantized)
    found = get_codec(quantized.format).decode(quantized)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])  # signs of zeros, too


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_matrices(name: str, format: str, rule: str) -> None:
    assert_equal_to_the_twin(ADVERSARIAL[name], format, rule)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
def test_any_finite_matrix(format: str, rule: str, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(1, 32), (2, 64), (3, 32)]))
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    assert_equal_to_the_twin(data.draw(arrays.arrays(np.float32, shape, elements=floats)), format, rule)


@pytest.mark.parametrize("rule", RULES)
@given(exponent=st.integers(-100, 30), seed=st.integers(0, 1 << 30))
def test_any_global_scale_of_siblings(rule: str, exponent: int, seed: int) -> None:
    # Beyond 2^30 every element saturates so far away that the errors of all scales are equal but for rounding.
    weight = np.random.default_rng(seed).standard_normal((2, 32)).astype(np.float32)
    assert_equal_to_the_twin(weight, "nvfp4", rule, float(np.float32(1.37 * 2.0**exponent)))


@pytest.mark.parametrize("columns", [1, 15, 31, 33, 129, 257])
@pytest.mark.parametrize("format", ["fp8_e4m3_channel", "fp8_e4m3_tensor", "fp8_e4m3_block"])
def test_blocks_that_the_matrix_cuts_off(format: str, columns: int) -> None:
    weight = np.random.default_rng(columns).standard_normal((columns + 3, columns)).astype(np.float32)
    assert_equal_to_the_twin(weight, format, "amax")


@pytest.mark.parametrize("format", ["nvfp4", "mxfp4"])
def test_all_pairs_of_element_and_scale_code_decode_alike(format: str) -> None:
    group = twin.FORMATS[format][2][1]
    scales = np.arange(256 if format == "nvfp4" else 255, dtype=np.uint8)  # E8M0 255, a NaN, is never written
    nibbles = np.resize(np.arange(16, dtype=np.uint8), (len(scales), group))
    quantized = Quantized(
        format,
        nibbles.shape,
        nibbles[:, 0::2] | nibbles[:, 1::2] << 4,
        scales[:, None],
        1792.0 if format == "nvfp4" else None,
    )
    assert_decoded_like_the_twin(quantized)


def test_all_element_codes_of_eight_bits_decode_alike_under_many_scales() -> None:
    codes = np.resize(np.arange(256, dtype=np.uint8), (255, 256))
    exponents = np.resize(np.arange(255, dtype=np.uint8), (255, 1)).repeat(8, axis=1)
    assert_decoded_like_the_twin(Quantized("mxfp8_e4m3", codes.shape, codes, exponents, None))
    bits = np.arange(255, dtype=np.uint16)[:, None] * 0x80  # positive bfloat16, one of each binade
    assert_decoded_like_the_twin(Quantized("fp8_e4m3_channel", codes.shape, codes, bits, None))


REFUSED = {
    "one axis": np.ones(32, np.float32),
    "NaN": np.where(np.arange(32) == 3, np.nan, np.ones((2, 32))).astype(np.float32),
    "infinity": np.where(np.arange(32) == 31, -np.inf, np.ones((2, 32))).astype(np.float32),
    "a cut group": np.ones((2, 40), np.float32),
    "a cut group with NaN": np.full((2, 40), np.nan, np.float32),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", REFUSED)
def test_both_refuse_the_same_with_the_same_exception(name: str, format: str) -> None:
    results = []
    for encode in (twin.encode, lambda weight, format: get_codec(format).encode(weight, scale_rule="amax")):
        try:
            encode(REFUSED[name], format)
        except Error as error:
            results.append(type(error))
        else:
            results.append(None)
    assert results[0] is results[1]
    assert results[0] is not None or (name == "a cut group" and twin.FORMATS[format][3])
