"""compressed-tensors' own classes parse what we write into ``config.json``, and mean the same by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from compressed_tensors.utils.match import match_name

from prismaquant.exporting import schemes
from prismaquant.exporting.config import quantization_config
from prismaquant.formats import list_schemes
from prismaquant.model import open_model
from support.plans import cycled
from support.resolvers import compressed_tensors
from support.tiny_models import build


def test_section_is_parsed_and_resolved_as_intended(tmp_path: Path) -> None:
    model = open_model(build("llama", tmp_path / "llama", num_hidden_layers=3))
    section = quantization_config(model, cycled(model, list_schemes()).units)
    assert section is not None
    parsed = QuantizationConfig.model_validate(json.loads(json.dumps(section)))
    assert list(parsed.config_groups) == list(section["config_groups"])
    for unit in model.units:
        for linear in unit.linears:
            if any(match_name(linear.name, entry) for entry in parsed.ignore):
                found = []
            else:
                groups = parsed.config_groups.items()
                found = [name for name, group in groups if any(match_name(linear.name, t) for t in group.targets)]
            wanted = compressed_tensors(section, linear.name)
            assert found == ([] if wanted is None else [wanted])
    for group in parsed.config_groups.values():
        assert infer_module_format(torch.nn.Linear, group).value == group.format


@pytest.mark.parametrize("name", [name for name in schemes.quantized_schemes() if name != "FP8A16"])  # has no preset
def test_arguments_are_those_of_the_preset(name: str) -> None:
    preset = preset_name_to_scheme("FP8" if name == "FP8_STATIC" else name, ["Linear"])
    ours = schemes.group_arguments(name)
    for written, expected in ((ours.weights, preset.weights), (ours.input_activations, preset.input_activations)):
        if written is None:
            assert expected is None
            continue
        # Left out on purpose: without an effect on loading, and unknown to older releases.
        free = {"zp_dtype", "observer", "observer_kwargs"}
        parsed = type(expected).model_validate(dict(written))
        assert parsed.model_dump(exclude=free) == expected.model_dump(exclude=free)
        assert "zp_dtype" not in written
