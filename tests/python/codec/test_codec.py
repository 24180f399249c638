"""The Python face of the codecs."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from prismaquant.codec import Quantized, get_codec
from prismaquant.errors import ArgumentError, FormatError, NumericError, ShapeError
from prismaquant.formats import format_info, list_formats
from prismaquant.solver import solve

WEIGHT = np.random.default_rng(1).standard_normal((24, 256)).astype(np.float32)
CHOOSING = [(name, rule) for name in list_formats() for rule in get_codec(name).scale_rules if rule != "given"]


@pytest.mark.parametrize(("name", "rule"), CHOOSING)
def test_every_format_under_every_rule_it_takes(name: str, rule: str) -> None:
    codec = get_codec(name)
    quantized = codec.encode(WEIGHT, scale_rule=rule)
    assert 8 * quantized.nbytes / WEIGHT.size == codec.bits_per_weight(WEIGHT.shape)
    assert (quantized.extra is not None) == bool(format_info(name).extra)
    decoded = codec.decode(quantized)
    np.testing.assert_array_equal(codec.roundtrip(WEIGHT, scale_rule=rule), decoded)
    stored, fused = codec.error(WEIGHT, quantized), codec.error(WEIGHT, scale_rule=rule)
    assert stored == fused
    difference = decoded.astype(np.float64) - WEIGHT
    assert stored.squared_error == pytest.approx((difference**2).sum(), rel=1e-12)
    assert stored.max_error == np.abs(difference).max()
    assert stored.squared_weight == pytest.approx((WEIGHT.astype(np.float64) ** 2).sum(), rel=1e-12)
    assert stored.snr_db > (15 if format_info(name).element_bits == 4 else 22)
    assert codec.squared_error(WEIGHT, quantized) == stored.squared_error


@pytest.mark.parametrize("name", list_formats())
def test_solvers_take_every_format(name: str) -> None:
    solution = solve(WEIGHT, name)
    assert solution.report.squared_error == get_codec(name).squared_error(WEIGHT, solution.quantized)


@pytest.mark.parametrize("name", [n for n in list_formats() if "given" in get_codec(n).scale_rules])
def test_given_scales(name: str) -> None:
    codec = get_codec(name)
    first = codec.encode(WEIGHT, scale_rule="sweep")
    if first.scales is None:
        return
    again = codec.encode(
        WEIGHT, scale_rule="given", scales=first.scales, extra=first.extra, global_scale=first.global_scale
    )
    np.testing.assert_array_equal(again.codes, first.codes)
    np.testing.assert_array_equal(again.scales, first.scales)


def test_given_scales_are_checked() -> None:
    codec = get_codec("mxfp4")
    with pytest.raises(ArgumentError, match="go together"):
        codec.encode(WEIGHT, scale_rule="given")
    with pytest.raises(ArgumentError, match="go together"):
        codec.encode(WEIGHT, scales=np.zeros((24, 8), np.uint8))
    with pytest.raises(ShapeError, match=r"scales: uint8 \(24, 7\) was given, expected uint8 \(24, 8\)"):
        codec.encode(WEIGHT, scale_rule="given", scales=np.zeros((24, 7), np.uint8))
    with pytest.raises(ArgumentError, match="global scale is needed"):
        get_codec("nvfp4").encode(WEIGHT, scale_rule="given", scales=np.ones((24, 16), np.uint8))
    with pytest.raises(ArgumentError, match="for encode only"):
        codec.roundtrip(WEIGHT, scale_rule="given")


def test_rules_are_for_formats() -> None:
    assert get_codec("nvfp4").scale_rules == ("amax", "sweep", "four_over_six", "given")
    assert get_codec("mxfp6_e3m2").scale_rules == ("amax", "sweep", "floor", "ceil", "given")
    with pytest.raises(FormatError, match="unknown scale rule 'ceil'"):
        get_codec("nvfp4").encode(WEIGHT, scale_rule="ceil")


def test_weights_of_columns_and_of_elements() -> None:
    codec = get_codec("nvfp4")
    h = np.random.default_rng(2).random(256) ** 4
    per_column = codec.encode(WEIGHT, scale_rule="sweep", weights=h)
    per_element = codec.encode(WEIGHT, scale_rule="sweep", weights=np.broadcast_to(h, WEIGHT.shape).astype(np.float32))
    np.testing.assert_array_equal(per_column.scales, per_element.scales)
    unweighted = codec.encode(WEIGHT, scale_rule="sweep")

    def cost(quantized: Quantized) -> float:
        return float((h * (codec.decode(quantized).astype(np.float64) - WEIGHT) ** 2).sum())

    assert cost(per_column) < cost(unweighted)
    np.testing.assert_array_equal(codec.roundtrip(WEIGHT, scale_rule="sweep", weights=h), codec.decode(per_column))
    with pytest.raises(ShapeError, match=r"weights: shape \(255,\), expected \(256,\) or \(24, 256\)"):
        codec.encode(WEIGHT, scale_rule="sweep", weights=h[1:])
    with pytest.raises(ArgumentError, match="'amax' does not use them"):
        codec.encode(WEIGHT, scale_rule="amax", weights=h)
    with pytest.raises(NumericError, match="not negative"):
        codec.encode(WEIGHT, scale_rule="sweep", weights=-h)


@pytest.mark.parametrize("name", list_formats())
def test_infinities_saturate_on_request(name: str) -> None:
    codec = get_codec(name)
    weight = WEIGHT.copy()
    weight[3, 5], weight[4, 6] = np.inf, -np.inf
    with pytest.raises(NumericError, match="2 infinite values"):
        codec.encode(weight)
    clipped = WEIGHT.copy()
    clipped[3, 5], clipped[4, 6] = np.abs(WEIGHT).max(), -np.abs(WEIGHT).max()
    got, expected = codec.encode(weight, saturate=True), codec.encode(clipped)
    np.testing.assert_array_equal(got.codes, expected.codes)
    assert got.global_scale == expected.global_scale
    np.testing.assert_array_equal(codec.roundtrip(weight, saturate=True), codec.roundtrip(clipped))
    assert codec.error(weight, saturate=True) == codec.error(clipped)
    weight[0, 0] = np.nan
    with pytest.raises(NumericError, match="1 NaN"):
        codec.encode(weight, saturate=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_roundtrip_keeps_the_dtype_and_works_in_place(dtype: type) -> None:
    codec = get_codec("mxfp4")
    weight = WEIGHT.astype(dtype)
    expected = codec.decode(codec.encode(weight)).astype(dtype)
    got = codec.roundtrip(weight)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, expected)
    assert codec.roundtrip(weight, out=weight) is weight
    np.testing.assert_array_equal(weight, expected)
    with pytest.raises(TypeError, match="dtype float16 is not that of weight, float32"):
        codec.roundtrip(WEIGHT, out=np.empty(WEIGHT.shape, np.float16))


def test_torch_in_torch_out() -> None:
    weight = torch.from_numpy(WEIGHT).to(torch.bfloat16)
    got = get_codec("fp8_e4m3_token").roundtrip(weight)
    assert isinstance(got, torch.Tensor)
    assert got.dtype == torch.bfloat16
    scale = weight.float().abs().amax(1, keepdim=True) / 448
    expected = (weight.float() / scale).to(torch.float8_e4m3fn).float() * scale
    assert torch.equal(got, expected.to(torch.bfloat16))


@pytest.mark.parametrize("name", ["nvfp4", "mxfp4", "mxfp8_e4m3", "fp8_e4m3_token", "int8_token"])
def test_tokens_alone_and_in_a_batch(name: str) -> None:
    """Activation quantizers: NVFP4 under a static global scale, the others with nothing but their rows."""
    codec = get_codec(name)
    scale = 2688.0 / 6.0 if name == "nvfp4" else None
    together = codec.roundtrip(WEIGHT, scale_rule="amax", global_scale=scale)
    for token in range(4):
        alone = codec.roundtrip(WEIGHT[token : token + 1], scale_rule="amax", global_scale=scale)
        np.testing.assert_array_equal(alone[0], together[token])
