"""What an exported folder contains, read with the safetensors library."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import deserialize

from prismaquant.codec import get_codec
from prismaquant.exporting import schemes
from prismaquant.exporting.run import export
from prismaquant.exporting.verify import verify
from prismaquant.files import manifest
from prismaquant.formats import BF16, format_info, get_scheme, list_schemes, stored_bytes, why_not
from prismaquant.model import Model, open_model
from prismaquant.progress import Event
from prismaquant.rendering.cache import RenderCache
from prismaquant.rendering.render import render
from prismaquant.types import Array
from support.plans import cycled, plan_of, sensitivity_of
from support.tiny_models import build

ALL = ("NVFP4", "FP8_DYNAMIC", "NVFP4A16", "BF16", "FP8_DYNAMIC")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = build("qwen2", tmp_path_factory.mktemp("model") / "qwen2")  # it has biases
    (folder / "chat_template.jinja").write_bytes(b"{{ messages }}\r\n\xef\xbb\xbf")
    (folder / "LICENSE").write_text("text")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("tools")
    (folder / "hf_quant_config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return open_model(folder)


@pytest.fixture(scope="module")
def exported(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    export(model, cycled(model, ALL), out, sensitivity=sensitivity_of(model), shard_size=50_000)
    return out


def tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor of every shard: dtype, shape, bytes."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in deserialize(path.read_bytes()):
            assert name not in found
            found[name] = (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def array(tensor: tuple[str, tuple[int, ...], bytes]) -> Array:
    dtype, shape, data = tensor
    return schemes.as_array(np.frombuffer(data, np.uint8), dtype, shape)


def test_every_linear_has_exactly_the_tensors_of_its_scheme(model: Model, exported: Path) -> None:
    stored = tensors(exported)
    expected = {name: (model.tensors[name].dtype, model.tensors[name].shape) for name in model.passthrough}
    for unit, planned in zip(model.units, cycled(model, ALL).units, strict=True):
        for linear in unit.linears:
            for suffix, facts in schemes.expected(planned.scheme, linear.rows, linear.columns).items():
                expected[f"{linear.name}.{suffix}"] = facts
    assert {name: (dtype, shape) for name, (dtype, shape, _) in stored.items()} == expected


def test_stored_tensors_unpack_to_the_rendering(model: Model, exported: Path) -> None:
    stored = tensors(exported)
    for unit, planned in zip(model.units, cycled(model, ALL).units, strict=True):
        rendering = render(model, unit, get_scheme(planned.scheme).weight_format, preset="scale_sweep")
        for linear in unit.linears:
            suffixes = schemes.expected(planned.scheme, linear.rows, linear.columns)
            parts = {suffix: array(stored[f"{linear.name}.{suffix}"]) for suffix in suffixes}
            got = schemes.unpack(planned.scheme, parts, (linear.rows, linear.columns))
            codec = get_codec(got.format)
            np.testing.assert_array_equal(codec.decode(got), codec.decode(rendering.quantized[linear.name]))
            assert got.global_scale == rendering.quantized[linear.name].global_scale


def test_other_tensors_are_the_sources_byte_for_byte(model: Model, exported: Path) -> None:
    stored = tensors(exported)
    assert any(name.endswith("q_proj.bias") for name in model.passthrough)
    for name in model.passthrough:
        assert stored[name][2] == model.read_bytes(name).tobytes(), name


def test_activation_scale_is_a_divisor_shared_by_the_unit(model: Model, exported: Path) -> None:
    stored = tensors(exported)
    unit = model.units[0]
    assert len(unit.linears) == 3
    # the hand-made sensitivity says 3, 6 and 9 for the three siblings
    for linear in unit.linears:
        assert array(stored[f"{linear.name}.input_global_scale"]) == np.float32(448 * 6) / np.float32(9)


def test_static_fp8_has_one_scale_of_weights_and_one_of_inputs_for_the_unit(model: Model, tmp_path: Path) -> None:
    export(model, cycled(model, ["FP8_STATIC"]), tmp_path / "out", sensitivity=sensitivity_of(model))
    stored = tensors(tmp_path / "out")
    names = [linear.name for linear in model.units[0].linears]
    assert {stored[f"{name}.weight_scale"] for name in names} == {stored[f"{names[0]}.weight_scale"]}
    assert stored[f"{names[0]}.weight_scale"][:2] == ("BF16", (1,))
    # the hand-made sensitivity says 3, 6 and 9 for the three siblings
    assert {float(array(stored[f"{name}.input_scale"])[0]) for name in names} == {
        float(np.float32(9) / np.float32(448))
    }
    assert verify(tmp_path / "out", source=model.path).ok


def test_all_tensors_of_a_linear_are_in_one_shard(model: Model, exported: Path) -> None:
    weight_map = json.loads((exported / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(weight_map.values())) > 2
    for linear in model.linears():
        found = {file for name, file in weight_map.items() if name.startswith(f"{linear.name}.")}
        assert len(found) == 1, linear.name


def test_files_of_the_source_are_copied_and_others_are_not(model: Model, exported: Path) -> None:
    source, out = files(model.path), files(exported)
    copied = {"chat_template.jinja", "LICENSE", "generation_config.json", "additional_chat_templates/tools.jinja"}
    shards = {name for name in out if name.endswith(".safetensors")}
    assert out.keys() == copied | shards | {
        "config.json",
        "model.safetensors.index.json",
        "prismaquant.json",
        "SHA256SUMS",
    }
    for name in copied:
        assert out[name] == source[name], name


def test_config_keeps_every_key_in_order(model: Model, exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert list(config) == [*model.config, "quantization_config"]
    assert {key: config[key] for key in model.config} == model.config


def test_manifest_states_what_was_written(model: Model, exported: Path) -> None:
    written = manifest.read(exported / manifest.FILE)
    stored = tensors(exported)
    assert written.plan == cycled(model, ALL)
    assert [record.name for record in written.linears] == [linear.name for linear in model.linears()]
    for record, linear in zip(written.linears, model.linears(), strict=True):
        assert record.bytes == stored_bytes(get_scheme(record.scheme), linear.rows, linear.columns)
        assert (record.squared_error > 0) == (record.scheme != BF16)
    assert written.tensor_bytes == sum(len(data) for _, _, data in stored.values())
    assert sum(record.bytes for record in written.linears) == written.plan.bytes
    assert written.bits_per_parameter == 8 * written.tensor_bytes / model.parameters


def test_manifest_is_readable_by_others(exported: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in exported.iterdir() if path.is_file()}
    assert len(set(modes.values())) == 1, modes


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_same_inputs_give_the_same_bytes(model: Model, exported: Path, tmp_path: Path, threads: int) -> None:
    report = export(
        model,
        cycled(model, ALL),
        tmp_path / "again",
        sensitivity=sensitivity_of(model),
        shard_size=50_000,
        threads=threads,
        cache=RenderCache(tmp_path / "cache", model.fingerprint, "scale_sweep"),
    )
    assert files(report.path) == files(exported)
    assert repr(report).startswith("ExportReport(")


def test_shard_size_changes_only_where_tensors_lie(model: Model, exported: Path, tmp_path: Path) -> None:
    export(model, cycled(model, ALL), tmp_path / "one", sensitivity=sensitivity_of(model))
    assert [path.name for path in (tmp_path / "one").glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]
    assert tensors(tmp_path / "one") == tensors(exported)


def test_a_plan_of_bf16_copies_the_model(model: Model, tmp_path: Path) -> None:
    export(model, cycled(model, [BF16]), tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_bytes() == (model.path / "config.json").read_bytes()
    assert tensors(tmp_path / "out") == tensors(model.path)


@pytest.mark.parametrize(("name", "dtype"), [("float16", np.float16), ("float32", np.float32)])
def test_other_dtypes_are_rounded_to_bf16_units(tmp_path: Path, name: str, dtype: type) -> None:
    source = open_model(build("llama", tmp_path / "source", dtype=name))
    export(source, cycled(source, [BF16, "NVFP4A16"]), tmp_path / "out")
    stored = tensors(tmp_path / "out")
    for linear in source.units[0].linears:
        weight = source.read_bytes(linear.weight.name).view(dtype).astype(np.float32)
        assert stored[linear.weight.name][0] == "BF16"
        assert stored[linear.weight.name][2] == weight.astype(ml_dtypes.bfloat16).tobytes()
    for passed in source.passthrough:
        assert stored[passed][0] == source.tensors[passed].dtype != "BF16"


def test_one_event_per_unit(model: Model, tmp_path: Path) -> None:
    events: list[Event] = []
    export(model, cycled(model, [BF16]), tmp_path / "out", progress=events.append)
    total = len(model.units)
    assert [event.item for event in events] == [*(unit.name for unit in model.units), ""]
    assert [(event.stage, event.done, event.total) for event in events] == [
        ("export", done, total) for done in range(total + 1)
    ]


@pytest.mark.parametrize("scheme", list_schemes())
@pytest.mark.parametrize("shape", [(1, 32), (7, 64), (130, 160), (3, 17)])
def test_table_agrees_with_the_planner_about_bytes(scheme: str, shape: tuple[int, int]) -> None:
    facts = get_scheme(scheme)
    if why_not(facts, *shape) is None:
        size = sum(schemes.nbytes(*stored) for stored in schemes.expected(scheme, *shape).values())
        assert size == stored_bytes(facts, *shape)
    else:
        block = max(format_info(facts.weight_format).block_columns, facts.multiple)
        assert shape[1] % block or shape[0] % facts.multiple


def test_units_of_one_model_may_all_differ(model: Model, tmp_path: Path) -> None:
    """The plan is by unit, not by kind of layer."""
    choice = ["FP8_DYNAMIC" if number % 3 else "NVFP4A16" for number in range(len(model.units))]
    report = export(model, plan_of(model, choice), tmp_path / "out")
    by_name = {record.name: record.scheme for record in report.manifest.linears}
    for unit, scheme in zip(model.units, choice, strict=True):
        assert {by_name[linear.name] for linear in unit.linears} == {scheme}
