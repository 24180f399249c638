"""The quantization configuration of a folder: every way to break it is caught by its rule."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from prismaquant.exporting.verify import verify
from support.exported import A16, expect
from support.mutations import INDEX

NVFP4_FORMAT, FP8_FORMAT = "nvfp4-pack-quantized", "float-quantized"


def _keys(**fields):
    return lambda folder: folder.quantization(lambda quantization: quantization.update(fields))


def _group(scheme_format: str, change, *, activations: bool = False):
    return lambda folder: folder.group(scheme_format, change, activations=activations)


def _layers_of(target: str, layers: str) -> str:
    """``target`` for other layers."""
    changed = re.sub(r"layers\[\.\][^\[]*\[\.\]", f"layers[.]{layers}[.]", target)
    assert changed != target
    return changed


def _to_all_layers(group):
    group["targets"] = [_layers_of(target, "[0-9]+") for target in group["targets"]]


def _first_target_gone(group):
    assert len(group["targets"]) > 1
    group["targets"].pop(0)


def _ignore(name: str):
    return lambda folder: folder.quantization(lambda quantization: quantization["ignore"].append(name))


def _separate_sibling(quantization):
    """The up_proj of layer 0 moves from its group into the FP8 one."""
    for group in quantization["config_groups"].values():
        group["targets"] = [target.replace("|up_proj", "") for target in group["targets"]]
        if group["format"] == FP8_FORMAT:
            group["targets"].append("re:^model[.]layers[.]0[.]mlp[.]up_proj$")


def _separate_fused_name(quantization):
    """The fused name of gate and up of layer 0 moves into the FP8 group."""
    for group in quantization["config_groups"].values():
        group["targets"] = [target.replace("|gate_up_proj", "") for target in group["targets"]]
        if group["format"] == FP8_FORMAT:
            group["targets"].append("model.layers.0.mlp.gate_up_proj")


CONFIG = {
    "other method": (_keys(quant_method="fp8"), "config-keys", "quant_method: is 'fp8', expected 'compressed-tensors'"),
    "frozen": (_keys(quantization_status="frozen"), "config-keys", "is 'frozen', expected 'compressed'"),
    "wrong format": (
        _keys(format=FP8_FORMAT),
        "config-keys",
        "format: is 'float-quantized', expected 'mixed-precision'",
    ),
    "cache scheme": (_keys(kv_cache_scheme={"num_bits": 8}), "config-keys", "kv_cache_scheme: is .* expected none"),
    "no groups": (_keys(config_groups={}), "config-keys", "config_groups: is {}, expected an object of groups"),
    "no ignore": (_keys(ignore=None), "config-keys", "ignore: is None, expected a list"),
    "list of targets": (_keys(config_groups={"NVFP4A16": ["Linear"]}), "config-group", "NVFP4A16: is not an object"),
    "no config at all": (
        lambda f: f.config(lambda c: c.update(quantization_config=[])),
        "config-keys",
        "is not an object",
    ),
    "forgotten config": (
        lambda f: f.config(lambda c: c.pop("quantization_config")),
        "tensor-set",
        "is missing, BF16 needs",
    ),
    "group size": (
        _group(NVFP4_FORMAT, lambda g: g["weights"].update(group_size=32)),
        "unknown-scheme",
        "none of NVFP4A16",
    ),
    "output": (
        _group(NVFP4_FORMAT, lambda g: g.update(output_activations=g["weights"])),
        "unknown-scheme",
        "arguments",
    ),
    "group format": (
        _group(FP8_FORMAT, lambda g: g.update(format="naive-quantized"), activations=True),
        "config-group",
        "is 'naive-quantized', FP8_DYNAMIC is 'float-quantized'",
    ),
    "unknown key": (_group(NVFP4_FORMAT, lambda g: g.update(colour=1)), "config-group", "has unknown keys colour"),
    "activations": (
        _group(NVFP4_FORMAT, lambda g: g.update(input_activations=None), activations=True),
        "tensor-set",
        "input_global_scale: is no tensor of NVFP4A16",
    ),
    "bad pattern": (
        _group(NVFP4_FORMAT, lambda g: g["targets"].append("re:(")),
        "pattern",
        "'re:\\('.* cannot be matched",
    ),
    "no text": (_ignore(7), "pattern", "7 cannot be matched"),
    "class": (
        _group(NVFP4_FORMAT, lambda g: g["targets"].append("Linear")),
        "class-target",
        "'Linear' is the name of a class",
    ),
    "misspelt": (
        _group(NVFP4_FORMAT, lambda g: g["targets"].append("re:^modle.*")),
        "dead-target",
        "'re:\\^modle.*' matches",
    ),
    "two groups": (_group(NVFP4_FORMAT, _to_all_layers), "resolution", "is matched by group_00, group_02; exactly one"),
    "no group": (_group(NVFP4_FORMAT, _first_target_gone), "resolution", "is matched by no group and not ignored"),
    "ignored target": (_ignore(A16), "resolution", "gate_proj: is matched by group_00, ignore"),
    "fused ignored": (_ignore("model.layers.0.mlp.gate_up_proj"), "fused-name", "is ignored, its Linears are not"),
    "sibling": (
        lambda f: f.quantization(_separate_sibling),
        "siblings",
        "gate_up_proj: its Linears have different schemes: gate_proj NVFP4A16, up_proj FP8_DYNAMIC",
    ),
    "fused name": (
        lambda f: f.quantization(_separate_fused_name),
        "fused-name",
        "gate_up_proj: is matched by group_02, its Linears by group_00",
    ),
    "head targeted": (
        _group(NVFP4_FORMAT, lambda g: g["targets"].append("re:.*lm_head$")),
        "unquantized",
        "lm_head: is no part of a unit, but a target of group_00",
    ),
    "head not ignored": (
        lambda f: f.quantization(lambda q: q["ignore"].remove("re:.*lm_head$")),
        "unquantized",
        "lm_head: is not quantized, but not in the ignore list",
    ),
    "embedding targeted": (
        _group(NVFP4_FORMAT, lambda g: g["targets"].append("model.embed_tokens")),
        "unquantized",
        "model.embed_tokens: is no part of a unit",
    ),
}


@pytest.mark.parametrize("case", CONFIG)
def test_broken_configurations_are_caught_without_the_source(broken, case):
    change, rule, text = CONFIG[case]
    change(broken)
    expect(verify(broken.path), rule, text)


def _places(document):
    """Every place of a JSON document, as a list of keys."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield [key]
        yield from ([key, *rest] for rest in _places(value))


@pytest.mark.parametrize("name", ["config.json", INDEX, "prismaquant.json"])
def test_odd_values_anywhere_in_a_json_file_give_a_report(broken, mixed_source, name):
    text = (broken.path / name).read_text()
    odd = itertools.cycle([None, [], {}, "text", -1, True, {"a": []}, [7], 1e300])
    for place, value in zip(list(_places(json.loads(text)))[:150], odd, strict=False):
        document = json.loads(text)
        holder = document
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        (broken.path / name).write_text(json.dumps(document))
        verify(broken.path, source=mixed_source)


def test_a_number_of_layers_that_nobody_has_is_not_counted_to(broken):
    broken.config(lambda config: config.update(num_hidden_layers=10**12))
    expect(verify(broken.path), "config-json", "num_hidden_layers is 1000000000000, expected 1 to")
