"""Codecs over torch tensors: borrowed through DLPack, with any strides, in and out."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from prismaquant.codec import Quantized, get_codec
from prismaquant.solver import shared_global_scale, solve
from support.formats import formats_for

FORMATS = formats_for(160)
ROWS, COLUMNS = 130, 160


@pytest.fixture(scope="module")
def weight() -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(5))


def assert_same(one: Quantized, other: Quantized) -> None:
    assert (one.format, one.shape, one.global_scale) == (other.format, other.shape, other.global_scale)
    np.testing.assert_array_equal(one.codes, other.codes)
    if other.scales is not None:
        np.testing.assert_array_equal(one.scales, other.scales)


def layouts(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same matrix in memory that is laid out differently."""
    rows, columns = weight.shape
    padded = weight.new_zeros(rows + 4, columns + 6)
    padded[1:-3, 2:-4] = weight
    sparse = weight.new_zeros(2 * rows, 3 * columns)
    sparse[1::2, ::3] = weight
    return {
        "dense": weight.clone(),
        "transposed": weight.t().contiguous().t(),
        "the middle of a larger one": padded[1:-3, 2:-4],
        "every second row, third column": sparse[1::2, ::3],
        "one of a stack": torch.stack([weight + 1, weight])[1],
    }


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_any_layout_give_the_bytes_of_the_numpy_array(
    weight: torch.Tensor, format: str, dtype: torch.dtype
) -> None:
    narrow = weight.to(dtype)
    codec = get_codec(format)
    expected = codec.encode(narrow.float().numpy())
    error = codec.squared_error(narrow.float().numpy(), expected)
    for name, tensor in layouts(narrow).items():
        assert_same(codec.encode(tensor), expected)
        assert codec.squared_error(tensor, expected) == error, name


def test_an_expanded_row_is_a_matrix_of_equal_rows(weight: torch.Tensor) -> None:
    expanded = weight[:1].expand(6, COLUMNS)
    assert expanded.stride() == (0, 1)
    for format in FORMATS:
        assert_same(get_codec(format).encode(expanded), get_codec(format).encode(expanded.contiguous()))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decode_into_tensors_of_any_layout(weight: torch.Tensor, format: str, dtype: torch.dtype) -> None:
    codec = get_codec(format)
    quantized = codec.encode(weight)
    expected = torch.from_numpy(codec.decode(quantized)).to(dtype)  # torch rounds to nearest even, too
    for name, out in layouts(torch.full((ROWS, COLUMNS), 99.0, dtype=dtype)).items():
        assert codec.decode(quantized, out=out) is out
        assert torch.equal(out, expected), name


def test_decode_leaves_the_rest_of_the_memory_alone(weight: torch.Tensor) -> None:
    buffer = torch.full((ROWS + 4, COLUMNS + 6), 99.0, dtype=torch.bfloat16)
    codec = get_codec("nvfp4")
    codec.decode(codec.encode(weight), out=buffer[1:-3, 2:-4])
    buffer[1:-3, 2:-4] = 99
    assert (buffer == 99).all()


def test_solver_and_shared_scale_take_tensors(weight: torch.Tensor) -> None:
    siblings = [weight, weight.t() * 2, weight.bfloat16()]
    scale = shared_global_scale(siblings, "nvfp4")
    assert scale == shared_global_scale([sibling.float().numpy() for sibling in siblings], "nvfp4")
    solution = solve(weight.bfloat16(), "nvfp4", global_scale=scale)
    assert_same(solution.quantized, solve(weight.bfloat16().float().numpy(), "nvfp4", global_scale=scale).quantized)


@pytest.fixture
def flushed_denormals() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("flushed_denormals")
def test_flushed_denormals_of_the_thread_change_nothing() -> None:
    """Scales of tiny blocks are float32 subnormals: a caller that flushes them must not change bytes."""
    weight = (np.arange(1, 65, dtype=np.uint32) * 125_000).view(np.float32).reshape(2, 32)  # 1.8e-40 to 1.1e-38
    assert (weight[0] * np.float32(0.5) == 0).all()  # the setting is on
    for format in FORMATS:
        codec = get_codec(format)
        for rule in ("amax", "sweep"):
            flushed = codec.encode(weight, scale_rule=rule, threads=1)
            decoded, error = codec.decode(flushed, threads=1), codec.squared_error(weight, flushed, threads=1)
            torch.set_flush_denormal(False)
            plain = codec.encode(weight, scale_rule=rule)
            assert_same(flushed, plain)
            np.testing.assert_array_equal(decoded.view(np.uint32), codec.decode(plain).view(np.uint32))
            assert error == codec.squared_error(weight, plain)
            torch.set_flush_denormal(True)


def test_no_call_keeps_a_tensor_alive(weight: torch.Tensor) -> None:
    codec = get_codec("nvfp4")
    tensor, out = weight.clone(), weight.clone()
    quantized = codec.encode(tensor)
    codec.decode(quantized, out=out)
    codec.squared_error(tensor, quantized)
    with pytest.raises(ValueError, match="axis 1"):
        codec.encode(tensor[:, 1:])
    died = [weakref.ref(tensor), weakref.ref(out)]
    del tensor, out
    gc.collect()
    assert [ref() for ref in died] == [None, None]


def test_a_result_outlives_its_tensor() -> None:
    codec = get_codec("nvfp4")
    quantized = codec.encode(torch.ones(64, 64))
    gc.collect()
    torch.full((64, 64), 7.0)  # may take the memory that was given back
    assert (codec.decode(quantized) == 1).all()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2, 32, requires_grad=True), r"weight: the tensor cannot be borrowed \(.*require gradient.*\)"),
        (torch.nn.Linear(32, 2).weight, r"weight: the tensor cannot be borrowed \(.*require gradient.*\)"),
        (torch.ones(2, 32, device="meta"), r"weight: the tensor (cannot be borrowed|is not in CPU memory)"),
        (torch.ones(2, 32, dtype=torch.float64), r"weight: dtype with DLPack code 2 of 64 bits is not supported"),
        (torch.ones(2, 32, dtype=torch.int32), r"weight: dtype with DLPack code 0 of 32 bits.*accepted are float32"),
        (torch.ones(2, 32).to(torch.float8_e4m3fn), r"weight: "),
        (torch.ones(2, 32).to_sparse(), r"weight: the tensor cannot be borrowed"),
    ],
    ids=["requires grad", "parameter", "meta", "float64", "int32", "float8", "sparse"],
)
def test_tensors_that_cannot_be_borrowed(tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        get_codec("nvfp4").encode(tensor)


def test_detached_parameters_are_accepted() -> None:
    parameter = torch.nn.Linear(32, 2).weight
    assert_same(get_codec("nvfp4").encode(parameter.detach()), get_codec("nvfp4").encode(parameter.detach().numpy()))
