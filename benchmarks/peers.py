"""What other libraries do of the same work, one thread, from a matrix to codes and scales, or back to a matrix.

Each function yields what it can for one matrix: `Contender`s. A library that is not installed raises ImportError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch_expressions as expressions

import prismaquant as pq

__all__ = ["PEERS", "Contender", "ours"]


@dataclass(frozen=True)
class Contender:
    """``run`` does ``direction`` ("encode", "decode") between ``format`` and ``dtype``; encoders return codes first.

    ``same_codes``: whether these are ours but for ties, which the benchmark checks; else the scale rule or the layout
    differs, at the same amount of work.
    """

    format: str
    direction: str
    dtype: str
    name: str
    run: Callable[[], Any]
    same_codes: bool = True


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _pair(
    format: str,
    name: str,
    weight: torch.Tensor,
    encode: Callable[[], Any],
    decode: Callable[[Any], Any] | None,
    same_codes: bool = True,
) -> Iterator[Contender]:
    """An encoder, and the decoder of what it makes. Decoders do not depend on the dtype that was encoded."""
    yield Contender(format, "encode", _name(weight.dtype), name, encode, same_codes)
    if decode is not None and weight.dtype == torch.float32:
        encoded = encode()
        dtype = _name(decode(encoded).dtype)
        yield Contender(format, "decode", dtype, name, lambda: decode(encoded))


def given_one() -> np.ndarray:
    """The scale 1 of a whole matrix, as bfloat16 bits."""
    return np.full((1, 1), 0x3F80, np.uint16)


def ours(format: str, direction: str, dtype: str, weight: torch.Tensor) -> Iterator[Contender]:
    """prismaquant's Python face; decoders also into memory that is there already."""
    codec = pq.get_codec(format)
    options: dict[str, Any] = {"threads": 1, "scale_rule": "amax"}
    if codec.info.has_global_scale:
        options["global_scale"] = global_scale(weight)
    if format.endswith("_tensor"):
        options |= {"scale_rule": "given", "scales": given_one()}

    def encode() -> tuple[Any, Any]:
        quantized = codec.encode(weight, **options)
        return quantized.codes, quantized

    if direction == "encode":
        yield Contender(format, direction, dtype, "prismaquant", encode)
        return
    quantized = encode()[1]
    out = codec.decode(quantized, dtype=dtype, threads=1)
    yield Contender(format, direction, dtype, "prismaquant", lambda: codec.decode(quantized, dtype=dtype, threads=1))
    yield Contender(format, direction, dtype, "prismaquant, out=", lambda: codec.decode(quantized, out=out, threads=1))


def global_scale(weight: torch.Tensor) -> float:
    """Divisor for nvfp4, which is no part of the work."""
    return 448 * 6 / weight.float().abs().max().item()


def torch_casts(weight: torch.Tensor) -> Iterator[Contender]:
    for name in ("e4m3fn", "e5m2"):
        dtype = getattr(torch, f"float8_{name}")
        format = f"fp8_{name.removesuffix('fn')}_tensor"
        yield from _pair(
            format, "torch cast", weight, lambda d=dtype: (weight.to(d),), lambda encoded: encoded[0].to(torch.float32)
        )
        if weight.dtype == torch.bfloat16:
            codes = weight.to(dtype)
            yield Contender(format, "decode", "bfloat16", "torch cast", lambda c=codes: c.to(torch.bfloat16))


def ml_dtypes_casts(weight: torch.Tensor) -> Iterator[Contender]:
    import ml_dtypes

    bfloat16 = weight.dtype == torch.bfloat16
    array = weight.view(torch.uint16).numpy().view(ml_dtypes.bfloat16) if bfloat16 else weight.numpy()
    for name in ("e4m3fn", "e5m2"):
        dtype = getattr(ml_dtypes, f"float8_{name}")
        format = f"fp8_{name.removesuffix('fn')}_tensor"
        yield from _pair(
            format, "ml_dtypes", weight, lambda d=dtype: (array.astype(d),), lambda e: e[0].astype(np.float32)
        )


def torch_eager(weight: torch.Tensor) -> Iterator[Contender]:
    yield from _torch_expressions("torch expressions", weight, lambda function: function)


def torch_compiled(weight: torch.Tensor) -> Iterator[Contender]:
    """The same expressions and torchao's through the C++ back end of torch.compile."""
    torch._inductor.config.compile_threads = 1
    yield from _torch_expressions("torch.compile", weight, torch.compile)
    try:
        yield from _torchao_nvfp4("torchao, compiled", weight, torch.compile)  # MX: E8M0 does not compile on CPUs
    except ImportError:
        return


def _torch_expressions(name: str, weight: torch.Tensor, wrap: Callable[[Any], Any]) -> Iterator[Contender]:
    e, g = expressions, global_scale(weight)
    nvfp4, nvfp4_back = wrap(e.encode_nvfp4), wrap(e.decode_nvfp4)
    yield from _pair("nvfp4", name, weight, lambda: nvfp4(weight, g), lambda q: nvfp4_back(*q, g))
    for format, encode, decode in (
        ("mxfp4", e.encode_mxfp4, e.decode_fp4_mx),
        ("mxfp8_e4m3", e.encode_fp8_mx, e.decode_fp8_mx),
        ("fp8_e4m3_channel", e.encode_fp8_channel, e.decode_fp8_channel),
        ("int4_g128", e.encode_int4, None),
    ):
        there, back = wrap(encode), None if decode is None else wrap(decode)
        yield from _pair(
            format, name, weight, lambda f=there: f(weight), None if back is None else lambda q, f=back: f(*q)
        )


def compressed_tensors(weight: torch.Tensor) -> Iterator[Contender]:
    """Largest magnitudes, `calculate_qparams` and the compressor, as a converter calls them."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams

    for format, preset, compressor, group in (
        ("nvfp4", "NVFP4A16", "nvfp4-pack-quantized", 16),
        ("mxfp4", "MXFP4A16", "mxfp4-pack-quantized", 32),
        ("mxfp8_e4m3", "MXFP8A16", "mxfp8-quantized", 32),
        ("fp8_e4m3_channel", "FP8_DYNAMIC", "float-quantized", weight.shape[1]),
        ("int4_g128", "W4A16", "pack-quantized", 128),
    ):
        scheme = preset_name_to_scheme(preset, ["Linear"])
        library = BaseCompressor.get_value_from_registry(compressor)
        divisor = torch.tensor([global_scale(weight)]) if format == "nvfp4" else None

        def encode(
            scheme: Any = scheme, library: Any = library, group: int = group, divisor: Any = divisor
        ) -> tuple[Any, Any]:
            blocks = weight.unflatten(1, (-1, group))
            scale, _ = calculate_qparams(blocks.amin(-1), blocks.amax(-1), scheme.weights, global_scale=divisor)
            if not scheme.weights.scale_dtype:
                scale = scale.to(torch.bfloat16).to(weight.dtype)  # in which it is stored
            state = {"weight": weight, "weight_scale": scale}
            if divisor is not None:
                state["weight_global_scale"] = divisor
            made = library.compress(state, scheme)
            return made["weight_packed" if "weight_packed" in made else "weight"], made

        def decode(encoded: Any, scheme: Any = scheme, library: Any = library) -> torch.Tensor:
            return library.decompress(encoded[1], scheme)["weight"]

        # Quotients of bfloat16 weights are rounded to bfloat16 there, so some codes differ.
        yield from _pair(format, "compressed-tensors", weight, encode, decode, same_codes=weight.dtype == torch.float32)


def torchao(weight: torch.Tensor) -> Iterator[Contender]:
    from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx

    yield from _torchao_nvfp4("torchao", weight, lambda function: function)
    for format, element in (("mxfp4", torch.float4_e2m1fn_x2), ("mxfp8_e4m3", torch.float8_e4m3fn)):
        yield from _pair(
            format,
            "torchao",
            weight,
            lambda e=element: to_mx(weight, e, 32)[::-1],
            lambda q, e=element: to_dtype(*q, e, 32, torch.float32),
            same_codes=False,  # its exponents are rounded down
        )


def _torchao_nvfp4(name: str, weight: torch.Tensor, wrap: Callable[[Any], Any]) -> Iterator[Contender]:
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, nvfp4_quantize

    factor = torch.tensor(1 / global_scale(weight))
    quantize = wrap(nvfp4_quantize)
    dequantize = wrap(lambda codes, scales: NVFP4Tensor(codes, scales, 16, torch.float32, factor).dequantize())
    yield from _pair(
        "nvfp4",
        name,
        weight,
        lambda: quantize(weight, 16, factor)[::-1],
        lambda q: dequantize(*q),
        same_codes=False,  # multiplies by reciprocals
    )


def gguf(weight: torch.Tensor) -> Iterator[Contender]:
    """numpy; float32 only. It has no encoder for NVFP4: random blocks are decoded."""
    from gguf import GGMLQuantizationType, dequantize, quantize

    if weight.dtype != torch.float32:
        return
    array = weight.numpy()
    mxfp4 = GGMLQuantizationType.MXFP4
    yield from _pair(
        "mxfp4", "gguf-py", weight, lambda: (quantize(array, mxfp4),), lambda q: dequantize(q[0], mxfp4), False
    )
    nvfp4 = GGMLQuantizationType.NVFP4
    blocks = np.random.default_rng(1).integers(0, 127, (weight.shape[0], weight.shape[1] // 64 * 36), np.uint8)
    yield Contender("nvfp4", "decode", "float32", "gguf-py", lambda: dequantize(blocks, nvfp4))


def bitsandbytes(weight: torch.Tensor) -> Iterator[Contender]:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    yield from _pair(
        "nf4",
        "bitsandbytes",
        weight,
        lambda: quantize_4bit(weight, blocksize=64, quant_type="nf4"),
        lambda q: dequantize_4bit(q[0], q[1], quant_type="nf4"),
    )


#: Name -> what it can do.
PEERS: dict[str, Callable[[torch.Tensor], Iterator[Contender]]] = {
    "torch": torch_casts,
    "torch expressions": torch_eager,
    "torch.compile": torch_compiled,
    "ml_dtypes": ml_dtypes_casts,
    "compressed-tensors": compressed_tensors,
    "torchao": torchao,
    "gguf": gguf,
    "bitsandbytes": bitsandbytes,
}
