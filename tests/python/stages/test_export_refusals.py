"""Plans and sensitivities that do not fit are refused before anything is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prismaquant.errors import FormatError, ModelError, NumericError, RefusedError, ShapeError
from prismaquant.exporting import schemes
from prismaquant.exporting.run import export
from prismaquant.files.plan import Plan
from prismaquant.files.sensitivity import Sensitivity
from prismaquant.model import Model, open_model
from prismaquant.rendering.input_scale import input_global_scale, input_scale
from support.plans import cycled, plan_of, sensitivity_of
from support.tiny_models import build


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    # 40 columns of down_proj do not divide into groups of 16
    return open_model(build("llama", tmp_path_factory.mktemp("model") / "llama", intermediate_size=40))


def refuse(model: Model, plan: Plan, folder: Path, sensitivity: Sensitivity | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        export(model, plan, folder / "out", sensitivity=sensitivity)
    assert list(folder.iterdir()) == []
    return str(caught.value)


def nvfp4(model: Model) -> Plan:
    """NVFP4 with quantized inputs for the first unit (q, k and v)."""
    return plan_of(model, ["NVFP4", *["BF16"] * (len(model.units) - 1)])


def test_plan_of_another_model(model: Model, tmp_path: Path) -> None:
    message = refuse(model, replace(cycled(model, ["BF16"]), model="sha256:0"), tmp_path)
    assert "plan: was made for the model sha256:0, this is sha256:" in message
    assert "plan again" in message


def test_plan_with_other_units(model: Model, tmp_path: Path) -> None:
    plan = cycled(model, ["BF16"])
    renamed = replace(plan.units[2], name="model.layers.0.mlp.gateup")
    for units in (
        plan.units[:-1],
        (*plan.units, plan.units[0]),
        (*plan.units[:2], renamed, *plan.units[3:]),
        (replace(plan.units[0], linears=plan.units[0].linears[:2]), *plan.units[1:]),
    ):
        assert "its units are not those of the model" in refuse(model, replace(plan, units=units), tmp_path)


def test_plan_with_an_unknown_scheme(model: Model, tmp_path: Path) -> None:
    plan = cycled(model, ["BF16"])
    plan = replace(plan, units=(replace(plan.units[0], scheme="NVFP5"), *plan.units[1:]))
    with pytest.raises(FormatError, match="unknown scheme 'NVFP5'"):
        export(model, plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_plan_with_a_scheme_that_the_shape_forbids(model: Model, tmp_path: Path) -> None:
    plan = cycled(model, ["BF16"])
    (number,) = (number for number, unit in enumerate(plan.units) if unit.name == "model.layers.0.mlp.down_proj")
    units = tuple(replace(unit, scheme="NVFP4A16") if i == number else unit for i, unit in enumerate(plan.units))
    message = refuse(model, replace(plan, units=units), tmp_path)
    assert "model.layers.0.mlp.down_proj" in message
    assert "40" in message


def test_quantized_inputs_need_a_sensitivity(model: Model, tmp_path: Path) -> None:
    message = refuse(model, nvfp4(model), tmp_path)
    assert message.startswith("model.layers.0.self_attn.qkv_proj: NVFP4 stores the range of the inputs")
    assert "sensitivity" in message


def test_sensitivity_of_another_model(model: Model, tmp_path: Path) -> None:
    sensitivity = replace(sensitivity_of(model), model="sha256:0")
    assert "sensitivity: was made for the model sha256:0" in refuse(model, nvfp4(model), tmp_path, sensitivity)


def test_sensitivity_without_the_unit(model: Model, tmp_path: Path) -> None:
    sensitivity = sensitivity_of(model)
    message = refuse(model, nvfp4(model), tmp_path, replace(sensitivity, units=sensitivity.units[1:]))
    assert "model.layers.0.self_attn.q_proj: has no statistics" in message


@pytest.mark.parametrize("amax", [float("nan"), float("inf"), -1.0])
def test_sensitivity_with_an_impossible_range(model: Model, tmp_path: Path, amax: float) -> None:
    message = refuse(model, nvfp4(model), tmp_path, sensitivity_of(model, amax))
    assert "sensitivity, model.layers.0.self_attn.qkv_proj" in message


def test_nan_in_a_weight_is_named_and_leaves_nothing(model: Model, tmp_path: Path) -> None:
    source = open_model(build("llama", tmp_path / "source"))
    tensor = source.tensors["model.layers.1.mlp.up_proj.weight"]
    data = bytearray((source.path / tensor.file).read_bytes())
    data[tensor.begin + 2 : tensor.begin + 4] = np.uint16(0x7FC0).tobytes()
    (source.path / tensor.file).write_bytes(data)
    source = open_model(source.path)
    with pytest.raises(NumericError, match=r"model\.layers\.1\.mlp\.up_proj\.weight.*1 NaN"):
        export(source, cycled(source, ["NVFP4A16"]), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_source_tensor_with_the_name_of_a_scale_is_refused(model: Model, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight_scale"
    taken = replace(model.tensors["model.norm.weight"], name=name)
    clashing = replace(model, tensors={**model.tensors, name: taken}, passthrough=(*model.passthrough, name))
    with pytest.raises(ModelError, match=r"q_proj\.weight_scale: the source has a tensor"):
        export(clashing, cycled(clashing, ["FP8_DYNAMIC"]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("amax", "expected"),
    [(448.0 * 6, 1.0), (1.5, 1792.0), (0.0, 1.0), (1e-45, 1.0), (3.0e38, float(np.float32(2688) / np.float32(3e38)))],
)
def test_input_global_scale(amax: float, expected: float) -> None:
    assert input_global_scale(amax) == expected


@pytest.mark.parametrize(("amax", "expected"), [(448.0, 1.0), (7.0, 1 / 64), (0.0, 1.0), (1e-45, 1.0)])
def test_input_scale(amax: float, expected: float) -> None:
    assert input_scale(amax) == expected


def test_unpack_refuses_parts_of_other_shape_or_dtype() -> None:
    good = {"weight": np.zeros((4, 32), np.uint8), "weight_scale": np.zeros((4, 1), np.uint16)}
    assert schemes.unpack("FP8_DYNAMIC", good, (4, 32)).shape == (4, 32)
    for bad in (
        {"weight": good["weight"]},
        {**good, "weight_scale": np.zeros(4, np.uint16)},
        {**good, "weight_scale": np.zeros((4, 1), np.float32)},
    ):
        with pytest.raises(ShapeError, match=r"weight_scale is not BF16 \[4, 1\], which FP8_DYNAMIC stores"):
            schemes.unpack("FP8_DYNAMIC", bad, (4, 32))
