"""`Quantized` to and from the tensors of a compressed-tensors layer, and what compressed-tensors makes of them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from prismaquant.codec import Quantized, get_codec
from prismaquant.codec.storage import StoredTensor, stored_formats
from prismaquant.errors import FormatError, ShapeError
from prismaquant.formats import list_formats
from prismaquant.types import Array

ROWS, COLUMNS = 72, 512
WEIGHT = 0.02 * np.random.default_rng(8).standard_normal((ROWS, COLUMNS)).astype(np.float32)

TORCH = {"F8_E4M3": torch.float8_e4m3fn, "BF16": torch.bfloat16}
ML_DTYPES = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "BF16": ml_dtypes.bfloat16}

#: Format -> compressor of compressed-tensors, arguments of the scheme.
COMPRESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "nvfp4": (
        "nvfp4-pack-quantized",
        {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "scale_dtype": TORCH["F8_E4M3"]},
    ),
    "int8_channel": ("int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}),
    "fp8_e4m3_channel": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    "fp8_e4m3_tensor": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}),
    "fp8_e4m3_block": (
        "float-quantized",
        {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]},
    ),
}
for name, bits, compressor in (
    ("mxfp4", 4, "mxfp4-pack-quantized"),
    ("mxfp6_e2m3", 6, "mxfp6-pack-quantized"),
    ("mxfp8_e4m3", 8, "mxfp8-quantized"),
):
    arguments = {"num_bits": bits, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8}
    COMPRESSORS[name] = (compressor, arguments)
for group in (32, 64, 128):
    arguments = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": group}
    COMPRESSORS[f"int4_g{group}"] = ("pack-quantized", arguments)
    COMPRESSORS[f"int4_g{group}_asym"] = ("pack-quantized", {**arguments, "symmetric": False})

#: Format -> suffix -> dtype and shape on disk.
STORED = {
    "nvfp4": {
        "weight_packed": ("U8", (72, 256)),
        "weight_scale": ("F8_E4M3", (72, 32)),
        "weight_global_scale": ("F32", (1,)),
    },
    "mxfp4": {"weight_packed": ("U8", (72, 256)), "weight_scale": ("U8", (72, 16))},
    "mxfp6_e2m3": {"weight_packed": ("U8", (72, 384)), "weight_scale": ("U8", (72, 16))},
    "mxfp8_e4m3": {"weight": ("F8_E4M3", (72, 512)), "weight_scale": ("U8", (72, 16))},
    "fp8_e4m3_channel": {"weight": ("F8_E4M3", (72, 512)), "weight_scale": ("BF16", (72, 1))},
    "fp8_e4m3_tensor": {"weight": ("F8_E4M3", (72, 512)), "weight_scale": ("BF16", (1,))},
    "fp8_e4m3_block": {"weight": ("F8_E4M3", (72, 512)), "weight_scale": ("BF16", (1, 4))},
    "int8_channel": {"weight": ("I8", (72, 512)), "weight_scale": ("BF16", (72, 1))},
    "bf16": {"weight": ("BF16", (72, 512))},
    "fp16": {"weight": ("F16", (72, 512))},
}
for group in (32, 64, 128):
    parts: dict[str, Any] = {
        "weight_packed": ("I32", (72, 64)),
        "weight_scale": ("BF16", (72, 512 // group)),
        "weight_shape": ("I64", (2,)),
    }
    STORED[f"int4_g{group}"] = parts
    STORED[f"int4_g{group}_asym"] = {**parts, "weight_zero_point": ("I32", (9, 512 // group))}


def as_torch(tensors: dict[str, StoredTensor]) -> dict[str, torch.Tensor]:
    found = {}
    for suffix, (dtype, array) in tensors.items():
        tensor = torch.from_numpy(array)
        found[suffix] = tensor.view(TORCH[dtype]) if dtype in TORCH else tensor
    return found


def as_ml_dtypes(tensors: dict[str, StoredTensor]) -> dict[str, Array]:
    return {
        suffix: array.view(ML_DTYPES[dtype]) if dtype in ML_DTYPES else array
        for suffix, (dtype, array) in tensors.items()
    }


def assert_same(one: Quantized, other: Quantized) -> None:
    assert (one.format, one.shape, one.global_scale, one.axis) == (
        other.format,
        other.shape,
        other.global_scale,
        other.axis,
    )
    for name in ("codes", "scales", "extra"):
        mine, wanted = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(mine, wanted)
        if wanted is not None:
            assert (mine.dtype, mine.shape) == (wanted.dtype, wanted.shape)


@pytest.mark.parametrize("format", STORED)
def test_there_and_back(format: str) -> None:
    quantized = get_codec(format).encode(WEIGHT)
    tensors = quantized.to_compressed_tensors()
    assert {suffix: (tensor.dtype, tensor.array.shape) for suffix, tensor in tensors.items()} == STORED[format]
    size = sum(tensor.array.nbytes for suffix, tensor in tensors.items() if suffix != "weight_shape")
    assert size == quantized.nbytes
    bits = {suffix: tensor.array for suffix, tensor in tensors.items()}
    for way in (tensors, bits, as_torch(tensors), as_ml_dtypes(tensors)):
        assert_same(Quantized.from_compressed_tensors(way, format), quantized)
    assert np.shares_memory(Quantized.from_compressed_tensors(as_torch(tensors), format).codes, quantized.codes)


@pytest.mark.parametrize("shape", [(1, 128), (3, 128), (129, 256)])
@pytest.mark.parametrize("format", STORED)
def test_small_and_ragged_shapes(format: str, shape: tuple[int, int]) -> None:
    quantized = get_codec(format).encode(np.ones(shape, np.float32))
    assert_same(Quantized.from_compressed_tensors(quantized.to_compressed_tensors(), format), quantized)


def test_the_table_is_complete() -> None:
    assert set(stored_formats()) == set(STORED) == {*COMPRESSORS, "bf16", "fp16"}


@pytest.mark.parametrize("format", COMPRESSORS)
def test_compressed_tensors_decodes_the_tensors(format: str) -> None:
    compressors = pytest.importorskip("compressed_tensors.compressors", reason="compressed-tensors is not installed")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    codec = get_codec(format)
    # Blocks of 128 x 128: it needs whole ones.
    weight = np.concatenate([WEIGHT, WEIGHT])[:128] if format == "fp8_e4m3_block" else WEIGHT
    quantized = codec.encode(weight)
    name, arguments = COMPRESSORS[format]
    scheme = quantization.QuantizationScheme(
        targets=["Linear"], weights=quantization.QuantizationArgs(**arguments), format=name
    )
    compressor = compressors.BaseCompressor.get_value_from_registry(name)
    decoded = compressor.decompress(as_torch(quantized.to_compressed_tensors()), scheme)["weight"]
    assert decoded.dtype == torch.bfloat16
    ours = torch.from_numpy(codec.decode(quantized))
    np.testing.assert_array_equal(decoded.float().numpy(), ours.to(torch.bfloat16).float().numpy())


@pytest.mark.parametrize("format", sorted(set(list_formats()) - set(STORED)))
def test_formats_that_it_does_not_store(format: str) -> None:
    quantized = get_codec(format).encode(WEIGHT)
    message = f"^compressed-tensors does not store {format}; it stores nvfp4, mxfp4, "
    with pytest.raises(FormatError, match=message):
        quantized.to_compressed_tensors()
    with pytest.raises(FormatError, match=message):
        Quantized.from_compressed_tensors({}, format)


def test_an_unknown_format() -> None:
    with pytest.raises(FormatError, match=r"unknown format 'NVFP4'; .* did you mean 'nvfp4'\?") as caught:
        Quantized.from_compressed_tensors({}, "NVFP4")
    assert caught.value.__notes__ == ["NVFP4 is a scheme; its weights are of the format 'nvfp4'"]


def test_a_transposed_matrix_is_stored_with_its_groups_along_the_rows() -> None:
    codec = get_codec("nvfp4")
    tensors = codec.encode(WEIGHT.T, axis=0).to_compressed_tensors()
    assert_same(Quantized.from_compressed_tensors(tensors, "nvfp4"), codec.encode(WEIGHT))


def test_matrices_of_a_batch_are_stored_one_by_one() -> None:
    bank = get_codec("nvfp4").encode(np.stack([WEIGHT, 2 * WEIGHT]))
    with pytest.raises(
        ShapeError, match=r"^quantized: is a batch of shape \(2, 72, 512\); .*: quantized\[i\]\.to_comp"
    ):
        bank.to_compressed_tensors()
    assert_same(Quantized.from_compressed_tensors(bank[1].to_compressed_tensors(), "nvfp4"), bank[1])


def test_tensors_of_a_linear_that_are_not_of_its_weight_are_ignored() -> None:
    quantized = get_codec("nvfp4").encode(WEIGHT)
    tensors = {**quantized.to_compressed_tensors(), "bias": np.ones(72), "input_global_scale": np.ones(1)}
    assert_same(Quantized.from_compressed_tensors(tensors, "nvfp4"), quantized)


def test_strided_tensors_of_torch_and_parameters() -> None:
    quantized = get_codec("fp8_e4m3_channel").encode(WEIGHT)
    tensors = as_torch(quantized.to_compressed_tensors())
    wide = torch.empty((72, 1024), dtype=torch.float8_e4m3fn)
    wide.view(torch.uint8)[:, ::2] = tensors["weight"].view(torch.uint8)
    scale = torch.nn.Parameter(tensors["weight_scale"])
    assert_same(
        Quantized.from_compressed_tensors({"weight": wide[:, ::2], "weight_scale": scale}, "fp8_e4m3_channel"),
        quantized,
    )


def without(tensors: dict[str, torch.Tensor], suffix: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != suffix}


def test_tensors_of_another_dtype_or_shape() -> None:
    good = as_torch(get_codec("nvfp4").encode(WEIGHT).to_compressed_tensors())
    for bad, message in (
        (without(good, "weight_scale"), r"^weight_scale is not F8_E4M3 \[72, 32\], which nvfp4 stores: it is missing$"),
        (
            without(good, "weight_packed"),
            r"^weight_packed: expected U8 with 2 axes, which nvfp4 stores: it is missing$",
        ),
        (
            {**good, "weight_scale": good["weight_scale"].view(torch.uint8)},
            r"F8_E4M3 \[72, 32\], .*: it is U8 \[72, 32\]$",
        ),
        ({**good, "weight_scale": good["weight_scale"].float()}, r"F8_E4M3 \[72, 32\], .*: it is F32 \[72, 32\]$"),
        ({**good, "weight_scale": good["weight_scale"][:, 1:]}, r"F8_E4M3 \[72, 32\], .*: it is F8_E4M3 \[72, 31\]$"),
        (
            {**good, "weight_global_scale": torch.tensor(1.0)},
            r"^weight_global_scale is not F32 \[1\], .*: it is F32 \[\]$",
        ),
        ({**good, "weight_packed": good["weight_packed"][0]}, r"^weight_packed: .*: it has shape \[256\]$"),
        (
            {**good, "weight_zero_point": torch.zeros(1)},
            r"^weight_zero_point: nvfp4 stores no such tensor, but weight_p",
        ),
        ({**good, "weight_scale": good["weight_scale"].double()}, r": it is float64 \[72, 32\]$"),
    ):
        with pytest.raises(ShapeError, match=message):
            Quantized.from_compressed_tensors(bad, "nvfp4")
    int4 = as_torch(get_codec("int4_g32").encode(WEIGHT).to_compressed_tensors())
    with pytest.raises(ShapeError, match=r"^weight_packed is not I32 \[72, 60\], which int4_g32 stores: it is I32"):
        Quantized.from_compressed_tensors({**int4, "weight_shape": torch.tensor([72, 480])}, "int4_g32")
    with pytest.raises(ShapeError, match=r"^weight_shape is not I64 \[2\]"):
        Quantized.from_compressed_tensors(without(int4, "weight_shape"), "int4_g32")
