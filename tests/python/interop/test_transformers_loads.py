"""Stock transformers with compressed-tensors loads an exported folder and computes with the weights that we decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import deserialize

from prismaquant.codec import get_codec
from prismaquant.exporting import schemes
from prismaquant.exporting.run import export
from prismaquant.exporting.verify import verify
from prismaquant.files.plan import Plan
from prismaquant.formats import BF16, list_schemes
from prismaquant.model import Model, open_model
from prismaquant.model.kept import NO_LAYER
from prismaquant.streaming.model_class import model_class, read_config
from prismaquant.types import Array
from support.plans import cycled, fits, plan_of, sensitivity_of, spread
from support.tiny_models import ARCHITECTURES, MULTIMODAL, build

#: Five schemes over four units per layer: every kind of unit meets several, none is the same in all layers.
SCHEMES = ("NVFP4", "FP8_DYNAMIC", "BF16", "NVFP4A16", "FP8_DYNAMIC")

DENSE_MULTIMODAL = [name for name in MULTIMODAL if not name.endswith("moe")]


def source_of(name: str, folder: Path, bundled: Path) -> Model:
    return open_model(bundled if name == "bundled" else build(name, folder / "source"))


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """As a user would."""
    return model_class(read_config(folder)).from_pretrained(folder, dtype="auto", output_loading_info=True)


def _expected(scheme: str) -> tuple[str, bool] | None:
    return None if scheme == BF16 else (schemes.group_arguments(scheme).format, not scheme.endswith("A16"))


def decoded(folder: Path, source: Model, plan: Plan) -> dict[str, Array]:
    """bfloat16 bits of every weight: by our decoder from the bytes in ``folder``, or as they are there."""
    stored = {
        name: schemes.as_array(np.frombuffer(tensor["data"], np.uint8), tensor["dtype"], tuple(tensor["shape"]))
        for path in folder.glob("*.safetensors")
        for name, tensor in deserialize(path.read_bytes())
    }
    weights = {name: stored[name] for name in source.passthrough}
    for unit, planned in zip(source.units, plan.units, strict=True):
        for linear in unit.linears:
            shape = linear.rows, linear.columns
            parts = {part: stored[f"{linear.name}.{part}"] for part in schemes.expected(planned.scheme, *shape)}
            quantized = schemes.unpack(planned.scheme, parts, shape)
            weight = get_codec(quantized.format).decode(quantized, dtype="bfloat16")
            weights[linear.weight.name] = weight.view(np.uint16)
    return weights


@pytest.mark.parametrize("name", [*ARCHITECTURES, *DENSE_MULTIMODAL, "bundled", "all schemes"])
def test_mixed_folder_loads_with_the_weights_we_decode(name: str, tmp_path: Path, tiny_llama: Path) -> None:
    source = source_of("bundled" if name == "all schemes" else name, tmp_path, tiny_llama)
    plan = cycled(source, SCHEMES)
    if name == "all schemes":
        plan = spread(source, list_schemes())
        assert {unit.scheme for unit in plan.units} == {*list_schemes()}
    export(source, plan, tmp_path / "out", sensitivity=sensitivity_of(source, 8.0), shard_size=10**5)
    model, info = load(tmp_path / "out")
    assert not any(info.values()), info
    assert model.dtype == torch.bfloat16

    by_name = {unit.name: unit.scheme for unit in plan.units}
    modules = dict(model.named_modules())
    for unit in source.units:
        for linear in unit.linears:
            module = source.architecture.module_name(linear.name)
            scheme = getattr(modules[module], "quantization_scheme", None)
            found = None if scheme is None else (scheme.format, scheme.input_activations is not None)
            assert found == _expected(by_name[unit.name]), linear.name

    with torch.no_grad():
        logits = model(torch.arange(24)[None]).logits  # the first call decompresses
    assert torch.isfinite(logits).all()
    parameters = dict(model.named_parameters())
    weights = decoded(tmp_path / "out", source, plan)
    for unit in source.units:
        for linear in unit.linears:
            dense = parameters[source.architecture.module_name(linear.weight.name)]
            assert dense.dtype == torch.bfloat16, linear.name
            np.testing.assert_array_equal(dense.detach().view(torch.uint16).numpy(), weights[linear.weight.name])
    state = model.state_dict()
    for passed in source.passthrough:
        (name,) = (name for name in state if f".{name}".endswith(f".{source.architecture.module_name(passed)}"))
        np.testing.assert_array_equal(state[name].view(torch.uint16).numpy(), weights[passed], err_msg=passed)


@pytest.mark.parametrize("name", ["llama", *DENSE_MULTIMODAL])
def test_pinned_head_and_tower_load_with_the_weights_we_decode(name: str, tmp_path: Path, tiny_llama: Path) -> None:
    source = source_of(name, tmp_path, tiny_llama)
    source = source.with_units(source.kept_units)
    plan = spread(source, list_schemes())
    export(source, plan, tmp_path / "out", sensitivity=sensitivity_of(source, 8.0))
    model, info = load(tmp_path / "out")
    assert not any(info.values()), info
    with torch.no_grad():
        assert torch.isfinite(model(torch.arange(24)[None]).logits).all()
    modules, weights = dict(model.named_modules()), decoded(tmp_path / "out", source, plan)
    quantized = 0
    for unit, planned in zip(source.units, plan.units, strict=True):
        for linear in unit.linears if unit.layer == NO_LAYER else ():
            place = f".{source.architecture.module_name(linear.name)}"
            (module,) = (module for found, module in modules.items() if f".{found}".endswith(place))
            scheme = getattr(module, "quantization_scheme", None)
            found = None if scheme is None else (scheme.format, scheme.input_activations is not None)
            assert found == _expected(planned.scheme), linear.name
            weight = module.weight.detach().view(torch.uint16).numpy()
            np.testing.assert_array_equal(weight, weights[linear.weight.name], err_msg=linear.name)
            quantized += scheme is not None
    assert quantized > (1 if source.outside else 0)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_folders_of_other_source_dtypes_run_when_loaded_by_default(dtype: str, tmp_path: Path) -> None:
    """compressed-tensors decodes NVFP4 to bfloat16 only, so the config must not keep the source's dtype."""
    source = open_model(build("llama", tmp_path / "source", dtype=dtype))
    export(source, cycled(source, ("NVFP4A16", "FP8_DYNAMIC", "BF16")), tmp_path / "out")
    verify(tmp_path / "out", source=source.path).raise_for_failures()
    model, info = load(tmp_path / "out")
    assert not any(info.values()), info
    with torch.no_grad():
        assert torch.isfinite(model(torch.arange(24)[None]).logits).all()


@pytest.fixture(scope="module")
def observed(tiny_llama: Path) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """Of the bundled model: tokens, their log probabilities, and the largest absolute input of each Linear."""
    model, _ = load(tiny_llama)
    ids = torch.arange(3, 51)[None]
    amax = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):

            def see(_: object, inputs: tuple[torch.Tensor], name: str = name) -> None:
                amax[name] = float(inputs[0].abs().max())

            module.register_forward_pre_hook(see)
    with torch.no_grad():
        return ids, model(ids).logits.float().log_softmax(-1), amax


@pytest.mark.parametrize(
    ("scheme", "most"),
    [
        ("NVFP4A16", 0.03),
        ("NVFP4", 0.06),
        ("MXFP4A16", 0.03),
        ("MXFP4", 0.06),
        ("W4A16", 0.03),
        ("MXFP8A16", 0.01),
        ("MXFP8", 0.01),
        ("FP8A16", 0.01),
        ("FP8_DYNAMIC", 0.01),
        ("FP8_STATIC", 0.01),
        ("FP8_BLOCK", 0.01),
        ("W8A8", 0.01),
        (BF16, 0.0),
    ],
)
def test_uniform_folder_of_the_bundled_model_stays_close_to_it(
    scheme: str, most: float, tmp_path: Path, tiny_llama: Path, observed: tuple[Any, Any, dict[str, float]]
) -> None:
    ids, expected, amax = observed
    source = open_model(tiny_llama)
    sensitivity = sensitivity_of(source, amax)
    schemes = [scheme if fits(scheme, unit) else BF16 for unit in source.units]
    export(source, plan_of(source, schemes), tmp_path / "out", sensitivity=sensitivity)
    model, info = load(tmp_path / "out")
    assert not any(info.values()), info
    with torch.no_grad():
        got = model(ids).logits.float().log_softmax(-1)
    kl = float((expected.exp() * (expected - got)).sum(-1).mean())
    assert kl == 0 if scheme == BF16 else 0 < kl < most
