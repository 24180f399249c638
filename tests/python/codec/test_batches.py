"""Batches of matrices and other axes: what each matrix would give alone, without a copy."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch

from prismaquant.codec import Quantized, get_codec
from prismaquant.errors import ArgumentError, FormatError, NumericError, ShapeError
from prismaquant.formats import format_info, list_formats
from prismaquant.types import Array

EXPERTS = np.random.default_rng(3).standard_normal((3, 16, 256)).astype(np.float32) * np.array(
    [[[1]], [[100]], [[0.01]]], np.float32
)


def assert_same(one: Quantized, other: Quantized) -> None:
    assert (one.format, one.shape, one.axis) == (other.format, other.shape, other.axis)
    assert np.array_equal(one.global_scale, other.global_scale)
    for name in ("codes", "scales", "extra"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("name", list_formats())
def test_each_matrix_of_a_batch_is_encoded_as_it_would_be_alone(name: str) -> None:
    codec = get_codec(name)
    together = codec.encode(EXPERTS)
    assert together.shape == EXPERTS.shape
    assert 8 * together.nbytes / EXPERTS.size == codec.bits_per_weight(EXPERTS.shape) == together.bits_per_weight
    decoded = codec.decode(together)
    assert decoded.shape == EXPERTS.shape
    parts = list(together)
    assert len(parts) == 3
    for expert, part, values in zip(EXPERTS, parts, decoded, strict=True):
        alone = codec.encode(expert)
        assert_same(part, alone)
        np.testing.assert_array_equal(values, codec.decode(alone))
    np.testing.assert_array_equal(codec.roundtrip(EXPERTS), decoded)
    error = codec.error(EXPERTS, together)
    assert error == codec.error(EXPERTS)
    alone_errors = [codec.error(expert) for expert in EXPERTS]
    assert error.squared_error == pytest.approx(sum(e.squared_error for e in alone_errors), rel=1e-15)
    assert error.max_error == max(e.max_error for e in alone_errors)
    signal = sum(e.squared_weight for e in alone_errors)
    if error.squared_error:
        assert error.snr_db == pytest.approx(10 * np.log10(signal / error.squared_error))
    assert codec.squared_error(EXPERTS, together) == pytest.approx(error.squared_error, rel=1e-15)


def test_a_batch_of_batches() -> None:
    codec = get_codec("nvfp4")
    bank = EXPERTS.reshape(3, 2, 8, 256)
    together = codec.encode(bank)
    assert together.codes.shape == (3, 2, 8, 128)
    assert isinstance(together.global_scale, np.ndarray)
    assert together.global_scale.shape == (3, 2)
    assert_same(together[2][1], codec.encode(bank[2, 1]))
    assert together[2].shape == (2, 8, 256)
    np.testing.assert_array_equal(codec.decode(together)[2, 1], codec.decode(together[2][1]))


def test_global_scales_of_a_batch() -> None:
    codec = get_codec("nvfp4")
    own = codec.encode(EXPERTS).global_scale
    assert isinstance(own, np.ndarray)
    assert own.dtype == np.float32
    assert own.tolist() == [codec.encode(expert).global_scale for expert in EXPERTS]
    shared = codec.encode(EXPERTS, global_scale=2.0)
    assert isinstance(shared.global_scale, np.ndarray)
    assert shared.global_scale.tolist() == [2, 2, 2]
    each = codec.encode(EXPERTS, global_scale=np.array([1.0, 2.0, 3.0]))
    assert_same(each[1], shared[1])
    assert each[2].global_scale == 3
    with pytest.raises(ShapeError, match=r"^global_scale: shape \(2,\), expected one number, or \(3,\): one for each"):
        codec.encode(EXPERTS, global_scale=np.ones(2))
    with pytest.raises(ShapeError, match=r"^global_scale: shape \(1,\), expected one number$"):
        codec.encode(EXPERTS[0], global_scale=np.ones(1))


@pytest.mark.parametrize("name", ["nvfp4", "mxfp6_e2m3", "int4_g128_asym", "fp8_e4m3_block", "nf4_double", "bf16"])
@pytest.mark.parametrize("axis", [-1, -2, -3, 0, 1, 2])
def test_an_axis_gives_the_bytes_of_the_moved_copy(name: str, axis: int) -> None:
    codec = get_codec(name)
    moved = np.random.default_rng(4).standard_normal((2, 128, 256)).astype(np.float32)
    weight = np.ascontiguousarray(np.moveaxis(moved, -1, axis))
    expected, found = codec.encode(moved), codec.encode(weight, axis=axis)
    assert (found.shape, found.axis) == (weight.shape, axis % 3 - 3)
    assert_same(replace(found, shape=moved.shape, axis=-1), expected)
    decoded = codec.decode(found)
    assert decoded.shape == weight.shape
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(np.moveaxis(decoded, axis, -1), codec.decode(expected))
    np.testing.assert_array_equal(codec.roundtrip(weight, axis=axis), decoded)
    assert codec.error(weight, found) == codec.error(weight, axis=axis) == codec.error(moved, expected)
    assert found.bits_per_weight == codec.bits_per_weight(weight.shape, axis=axis)
    part = found[1]
    assert_same(replace(part, shape=moved.shape[1:], axis=-1), expected[1])
    np.testing.assert_array_equal(codec.decode(part), np.take(decoded, 1, axis=1 if axis % 3 == 0 else 0))


def test_the_transposed_matrix_is_not_copied() -> None:
    codec, weight = get_codec("nvfp4"), np.ones((2048, 512), np.float32)
    codec.encode(weight[:32], axis=-2)  # imports
    tracemalloc.start()
    try:
        found = codec.encode(weight, axis=-2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.codes.shape == (512, 1024)
    assert peak < 0.25 * weight.nbytes


def test_weights_of_a_batch_follow_the_axis() -> None:
    codec, h = get_codec("nvfp4"), np.random.default_rng(5).random(256) ** 4
    along = codec.encode(EXPERTS, weights=h)
    for index, expert in enumerate(EXPERTS):
        assert_same(along[index], codec.encode(expert, weights=h))
    each = np.stack([h, h[::-1], np.ones(256)])[:, None, :]
    of_experts = codec.encode(EXPERTS, weights=each)
    assert_same(of_experts[1], codec.encode(EXPERTS[1], weights=h[::-1]))
    turned = codec.encode(EXPERTS.swapaxes(1, 2), weights=h, axis=1)
    np.testing.assert_array_equal(turned.codes, along.codes)
    turned = codec.encode(EXPERTS.swapaxes(1, 2), weights=each.swapaxes(1, 2), axis=1)
    np.testing.assert_array_equal(turned.codes, of_experts.codes)
    for wrong in (["a"] * 256, torch.ones(256, dtype=torch.bfloat16), torch.ones(256, requires_grad=True)):
        with pytest.raises(TypeError, match=r"^weights: expected real numbers as an array, got (list|Tensor) \("):
            codec.encode(EXPERTS, weights=wrong)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"^weights: shape \(3, 256\), expected \(256,\) or \(3, 16, 256\)$"):
        codec.encode(EXPERTS, weights=np.ones((3, 256)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_batches_of_torch(dtype: torch.dtype) -> None:
    codec, bank = get_codec("nvfp4"), torch.from_numpy(EXPERTS).to(dtype)
    expected = codec.encode(bank.float().numpy())
    assert_same(codec.encode(bank), expected)
    turned = bank.mT
    assert_same(replace(codec.encode(turned, axis=-2), shape=bank.shape, axis=-1), expected)
    out = torch.empty_like(bank)
    assert codec.decode(expected, out=out) is out
    np.testing.assert_array_equal(out.float().numpy(), torch.from_numpy(codec.decode(expected)).to(dtype).float())
    assert torch.equal(codec.roundtrip(bank), out)
    before = turned.clone()
    assert codec.roundtrip(turned, axis=1, out=turned) is turned
    assert torch.equal(turned.mT, out)
    assert not torch.equal(turned, before)


def test_tensors_of_jax_lend_in_the_form_of_dlpack_1() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    bank = jax.numpy.asarray(EXPERTS).astype(jax.numpy.bfloat16)
    narrow = EXPERTS.astype(ml_dtypes.bfloat16)
    assert_same(get_codec("mxfp4").encode(bank), get_codec("mxfp4").encode(narrow))
    found = get_codec("mxfp4").roundtrip(bank)  # arrays of jax cannot be written
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found, get_codec("mxfp4").roundtrip(narrow))


@pytest.mark.parametrize("name", list_formats())
def test_results_are_reused(name: str) -> None:
    codec = get_codec(name)
    first = codec.encode(EXPERTS)
    arrays = first.codes, first.scales, first.extra
    again = codec.encode(EXPERTS[::-1], out=first)
    assert (again.codes, again.scales, again.extra) == arrays or all(
        a is b for a, b in zip((again.codes, again.scales, again.extra), arrays, strict=True)
    )
    assert_same(again, codec.encode(EXPERTS[::-1]))
    if format_info(name).has_global_scale:
        assert again.global_scale is not first.global_scale


def test_results_that_cannot_be_reused() -> None:
    codec = get_codec("nvfp4")
    out = codec.encode(EXPERTS)
    with pytest.raises(ShapeError, match=r"^out: was made for .*nvfp4, shape \(3, 16, 256\), axis -1; this is"):
        codec.encode(EXPERTS[0], out=out)
    with pytest.raises(ShapeError, match=r"^out: was made for format nvfp4.*; this is mxfp4"):
        get_codec("mxfp4").encode(EXPERTS, out=out)
    with pytest.raises(TypeError, match=r"^out: expected a Quantized, got ndarray$"):
        codec.encode(EXPERTS, out=np.empty(3))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"codes is 16 x 127, expected 16 x 128; in matrix \[0\] of the batch \[3\]$"):
        codec.encode(EXPERTS, out=replace(out, codes=out.codes[..., :-1]))
    out.codes.flags.writeable = False
    with pytest.raises(ValueError, match=r"^codes: the array is read-only"):
        codec.encode(EXPERTS, out=out)


def test_given_scales_of_a_batch() -> None:
    codec = get_codec("int4_g128_asym")
    first = codec.encode(EXPERTS)
    again = codec.encode(EXPERTS, scale_rule="given", scales=first.scales, extra=first.extra)
    assert_same(again, first)
    with pytest.raises(ShapeError, match=r"^extra: int32 \(2, 2\) was given, expected int32 \(3, 2, 2\)$"):
        codec.encode(EXPERTS, scale_rule="given", scales=first.scales, extra=first[0].extra)
    with pytest.raises(ShapeError, match=r"^extra: None was given, expected int32"):
        codec.encode(EXPERTS, scale_rule="given", scales=first.scales)


def bad(index: tuple[int, int, int], value: float) -> Array:
    weight = EXPERTS.copy()
    weight[index] = value
    return weight


def test_errors_say_which_matrix() -> None:
    codec = get_codec("nvfp4")
    message = r"^weight: 1 NaN and 0 infinite values, the first at row 5, column 7; in matrix \[2\] of the batch \[3\]$"
    for call in (codec.encode, codec.roundtrip, codec.error):
        with pytest.raises(NumericError, match=message):
            call(bad((2, 5, 7), np.nan))
    message = r"the first at row 7, column 5; in matrix \[1\] of the batch \[3\], where axis -2 is the columns$"
    with pytest.raises(NumericError, match=message):
        codec.encode(bad((1, 5, 7), np.inf), axis=1)
    with pytest.raises(NumericError, match=r"the first at row 0, column 9; where axis -2 is the columns$"):
        codec.encode(np.where(np.arange(16) == 9, np.inf, np.ones((4, 16))).astype(np.float32).T, axis=0)


def test_errors_name_the_axis() -> None:
    codec = get_codec("mxfp4")
    message = r"^weight: axis -2 of shape \(3, 16, 256\) is not a multiple of the group size 32 of mxfp4, whose groups"
    for call in (codec.encode, codec.roundtrip, codec.error):
        with pytest.raises(ShapeError, match=message):
            call(EXPERTS, axis=1)
    with pytest.raises(ShapeError, match=r"^axis: 3 is none of shape \(3, 16, 256\), expected -3 to 2$"):
        codec.encode(EXPERTS, axis=3)
    with pytest.raises(ShapeError, match=r"got shape \(256,\); one row is weight\[None\]$"):
        codec.encode(EXPERTS[0, 0])
    quantized = codec.encode(EXPERTS)
    with pytest.raises(ShapeError, match=r"^out: shape \(3, 16, 255\), expected \(3, 16, 256\)$"):
        codec.decode(quantized, out=np.empty((3, 16, 255), np.float32))
    with pytest.raises(ShapeError, match=r"^weight: shape \(16, 256\), expected \(3, 16, 256\)$"):
        codec.error(EXPERTS[0], quantized)
    with pytest.raises(ShapeError, match=r"^scales: shape \(2, 16, 8\), expected \(3, '...', '...'\)$"):
        codec.decode(replace(quantized, scales=quantized.scales[:2]))  # type: ignore[index]
    with pytest.raises(TypeError, match=r"^quantized: expected a Quantized, got ndarray$"):
        codec.decode(EXPERTS)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"^quantized: is in format mxfp4, this codec is for nvfp4$"):
        get_codec("nvfp4").error(EXPERTS, quantized)
    with pytest.raises(ShapeError, match=r"^quantized: is one matrix \(16, 256\); only a batch"):
        quantized[0][0]
    with pytest.raises(IndexError):
        quantized[3]
    with pytest.raises(ArgumentError, match=r"^bins: 0, expected at least 1"):
        codec.error(EXPERTS, bins=0)


@pytest.mark.parametrize("shape", [(0, 4, 32), (2, 0, 32)])
def test_nothing_to_encode(shape: tuple[int, ...]) -> None:
    codec = get_codec("nvfp4")
    empty = np.zeros(shape, np.float32)
    quantized = codec.encode(empty)
    assert codec.decode(quantized).shape == shape
    assert codec.error(empty).squared_error == 0
    with pytest.raises(ShapeError, match=r"^shape: .* holds no weights$"):
        codec.bits_per_weight(shape)
