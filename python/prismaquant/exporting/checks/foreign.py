"""Folders in the forms of other tools: what can be told of them without knowing which layer was meant to be what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prismaquant.exporting.checks import rules
from prismaquant.exporting.config import FILE, KEY
from prismaquant.exporting.report import Check

if TYPE_CHECKING:
    from prismaquant.exporting.checks.folder import Folder
    from prismaquant.exporting.checks.structure import Layout
    from prismaquant.model import TensorInfo

__all__ = ["METHODS", "check_foreign", "method_of"]


@dataclass(frozen=True, slots=True)
class _Scale:
    """A scale beside the codes: its suffix, the dtypes it may have, and how many stored codes share one, per axis.

    0 stands for the whole axis. Where ``is_shared`` engines keep one for all siblings of a unit.
    """

    suffix: str
    dtypes: tuple[str, ...]
    block: tuple[int, int]
    is_shared: bool = False
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class _Form:
    """A way to store a Linear: suffix and dtype of its codes, and its scales."""

    codes: str
    dtype: str
    scales: tuple[_Scale, ...]


def _of_modelopt(section: Mapping[str, Any]) -> tuple[_Form, ...]:
    of_inputs = _Scale("input_scale", ("F32",), (0, 0), is_optional=True)
    whole = _Scale("weight_scale_2", ("F32",), (0, 0), is_shared=True)
    return (
        _Form("weight", "U8", (_Scale("weight_scale", ("F8_E4M3",), (1, 8)), whole, of_inputs)),
        _Form("weight", "F8_E4M3", (_Scale("weight_scale", ("F32", "BF16"), (0, 0)), of_inputs)),
        _Form("weight", "F8_E4M3", (_Scale("weight_scale", ("F32", "BF16"), (1, 0)), of_inputs)),
        _Form("weight", "F8_E4M3", (_Scale("weight_scale", ("U8",), (1, 32)),)),
    )


def _of_fp8(section: Mapping[str, Any]) -> tuple[_Form, ...]:
    sizes = section.get("weight_block_size")
    of_inputs = _Scale("input_scale", ("F32", "BF16"), (0, 0), is_optional=True)
    if isinstance(sizes, list) and len(sizes) == 2 and all(type(size) is int and size > 0 for size in sizes):
        return (_Form("weight", "F8_E4M3", (_Scale("weight_scale_inv", ("F32", "BF16", "U8"), (sizes[0], sizes[1])),)),)
    return (_Form("weight", "F8_E4M3", (_Scale("weight_scale", ("F32", "BF16"), (0, 0)), of_inputs)),)


def _of_gptq(section: Mapping[str, Any]) -> tuple[_Form, ...]:
    """Codes ``[columns / codes in a word, rows]``: both axes are swapped."""
    bits, group = section.get("bits"), section.get("group_size")
    if type(bits) is not int or type(group) is not int or 32 % max(bits, 1) or bits < 1:
        return ()
    words = group * bits // 32 if group > 0 else 0
    return (_Form("qweight", "I32", (_Scale("scales", ("F16", "BF16", "F32"), (words, 1)),)),)


def _of_bitsandbytes(section: Mapping[str, Any]) -> tuple[_Form, ...]:
    """Two codes in a byte of a single column; blocks of 64, and of 256 blocks where their scales are codes."""
    return (
        _Form("weight", "U8", (_Scale("weight.absmax", ("F32",), (32, 1)),)),
        _Form("weight", "U8", (_Scale("weight.nested_absmax", ("F32",), (256 * 32, 1)),)),
    )


#: ``quant_method`` -> the forms that its tool writes. Sources: ModelOpt's unified export, DeepSeek-V3's folder and
#: transformers' FineGrainedFP8Config, auto-round's and GPTQModel's packing, bitsandbytes' QuantState.
METHODS = {
    "modelopt": _of_modelopt,
    "fp8": _of_fp8,
    "auto-round": _of_gptq,
    "gptq": _of_gptq,
    "bitsandbytes": _of_bitsandbytes,
}

_PLAIN = ("BF16", "F16", "F32")


def method_of(config: Mapping[str, Any]) -> str | None:
    """``quant_method`` of a folder of another tool; ``None`` if it is in the form of compressed-tensors, or in none."""
    section = config.get(KEY)
    method = section.get("quant_method") if isinstance(section, Mapping) else None
    return method if isinstance(method, str) and method != "compressed-tensors" else None


def check_foreign(folder: Folder, layout: Layout, method: str) -> Iterator[Check]:
    """Every Linear is stored in a form of ``method``, or is plain; its scales are positive and finite, codes no NaN."""
    where = f"{FILE}: {KEY}.quant_method"
    if method not in METHODS:
        text = f"is {method!r}: nothing is known of how it stores weights; known are {', '.join(METHODS)}"
        yield Check("foreign", where, text, is_warning=True)
        return
    text = f"is {method!r}: the values of weights, and which layers the configuration means, cannot be judged"
    yield Check("foreign", where, text, is_warning=True)
    forms = METHODS[method](folder.config[KEY])
    for unit in layout.units:
        for name in unit.linears:
            yield from _check_linear(folder, name, forms)
        for scale in {scale for form in forms for scale in form.scales if scale.is_shared}:
            found = {name: folder.parts.get(name, {}).get(scale.suffix) for name in unit.linears}
            values = {name: folder.read(tensor).tobytes() for name, tensor in found.items() if tensor is not None}
            if len(set(values.values())) > 1 and "experts" not in unit.name:
                text = "differs between siblings: engines keep one for all of them"
                yield Check("shared-scale", f"{unit.name}.{scale.suffix}", text)


def _check_linear(folder: Folder, name: str, forms: tuple[_Form, ...]) -> Iterator[Check]:
    tensors = _tensors(folder, name)
    weight = tensors.get("weight")
    if weight is not None and weight.dtype in _PLAIN:
        return
    alike = [form for form in forms if form.codes in tensors and tensors[form.codes].dtype == form.dtype]
    if not alike:
        found = ", ".join(f"{suffix} {tensor.dtype}" for suffix, tensor in sorted(tensors.items())) or "nothing"
        yield Check("tensor-set", name, f"is stored as {found}, which is no form of this method")
        return
    problems = [list(_check_form(folder, name, form)) for form in alike]
    yield from min(problems, key=len)  # of forms that differ in their scales only, the one that was meant


def _check_form(folder: Folder, name: str, form: _Form) -> Iterator[Check]:
    tensors = _tensors(folder, name)
    codes = tensors[form.codes]
    if len(codes.shape) != 2:
        yield Check("tensor-shape", codes.name, f"is {list(codes.shape)}, expected [rows, columns]")
        return
    for scale in form.scales:
        tensor = tensors.get(scale.suffix)
        if tensor is None:
            if not scale.is_optional:
                yield Check("tensor-set", f"{name}.{scale.suffix}", "is missing, its codes are there")
            continue
        if tensor.dtype not in scale.dtypes:
            expected = " or ".join(scale.dtypes)
            yield Check("tensor-dtype", tensor.name, f"is {tensor.dtype}, expected {expected}")
        elif not _fits(tensor, codes, scale.block):
            yield Check("tensor-shape", tensor.name, f"is {list(tensor.shape)}, its codes are {list(codes.shape)}")
        else:
            yield from rules.check_scale(tensor, folder.read(tensor))
    if codes.dtype == "F8_E4M3":
        yield from rules.check_codes(codes, folder.read(codes))


def _tensors(folder: Folder, name: str) -> dict[str, TensorInfo]:
    """Suffix -> tensor, of the Linear ``name``; bitsandbytes names the scales below the weight."""
    below = folder.parts.get(f"{name}.weight", {})
    return folder.parts.get(name, {}) | {f"weight.{suffix}": tensor for suffix, tensor in below.items()}


def _fits(scale: TensorInfo, codes: TensorInfo, block: tuple[int, int]) -> bool:
    """Whether there is one scale for every ``block`` of codes; axes of length 1 may be left out."""
    wanted = [1 if size == 0 else -(-length // size) for length, size in zip(codes.shape, block, strict=True)]
    return [length for length in scale.shape if length != 1] == [length for length in wanted if length != 1]
