"""The data entries against the module trees that transformers builds, and what a bad entry is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from prismaquant.errors import ModelError
from prismaquant.model import architectures, list_architectures, open_model
from prismaquant.model.architectures import find_architecture, parse_entry
from support import hostile
from support.tiny_models import ARCHITECTURES, MIXTURES, MULTIMODAL, build

GOOD = """
model_type = "lamb"
classes = ["LambForCausalLM"]
layers = "model.layers"
source = "a paper"
units = [
    { name = "attention.qkv", linears = ["attention.q", "attention.k"] },
    { name = "mlp.down", linears = ["mlp.down"] },
]
"""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(request.param, tmp_path_factory.mktemp(request.param))


def test_the_known_architectures() -> None:
    assert list_architectures() == tuple(sorted((*ARCHITECTURES, *MIXTURES, *MULTIMODAL)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_entry_says_where_its_facts_are_from(name: str) -> None:
    architecture = find_architecture({"model_type": name}, "config.json")
    assert "modeling_" in architecture.source
    assert repr(architecture) == f"Architecture({name}, {len(architecture.units)} units per layer)"


def test_every_linear_of_the_layers_is_in_exactly_one_unit(folder: Path) -> None:
    model = open_model(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    expected = {
        name: tuple(module.weight.shape)
        for name, module in theirs.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(model.architecture.layers)
    }
    found = [(linear.name, (linear.rows, linear.columns)) for linear in model.linears()]
    assert len(found) == len(expected)
    assert dict(found) == expected
    assert model.unknown == ()
    assert model.num_layers == theirs.config.num_hidden_layers


def test_tensors_are_the_parameters_of_the_real_model(folder: Path) -> None:
    model = open_model(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    parameters = dict(theirs.named_parameters())  # a tied head is listed once, as in the file
    assert {name: tensor.shape for name, tensor in model.tensors.items()} == {
        name: tuple(parameter.shape) for name, parameter in parameters.items()
    }
    for linear in model.linears():
        weight = torch.from_numpy(model.read_weight(linear))
        assert torch.equal(weight, parameters[linear.weight.name])


def test_units_are_the_linears_that_share_an_input_in_forward_order(folder: Path) -> None:
    """Siblings can be fused only if the very same tensor goes into all of them."""
    model = open_model(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    seen: list[tuple[str, torch.Tensor]] = []

    def watch(name: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda module, inputs: seen.append((name, inputs[0]))

    for linear in model.linears():
        theirs.get_submodule(linear.name).register_forward_pre_hook(watch(linear.name))
    theirs(torch.arange(8)[None])
    assert [name for name, _ in seen] == [linear.name for linear in model.linears()]
    inputs = dict(seen)
    keys = [{id(inputs[linear.name]) for linear in unit.linears} for unit in model.units]
    assert all(len(key) == 1 for key in keys)
    # The two fusions of a linear attention get one input, and are two only because engines have two kernels for them.
    assert len(set.union(*keys)) == sum(not unit.name.endswith("in_proj_ba") for unit in model.units)


def test_good_entry() -> None:
    architecture = parse_entry(GOOD, "lamb.toml")
    assert [unit.name for unit in architecture.units] == ["attention.qkv", "mlp.down"]
    assert architecture.weights == {"attention.q.weight", "attention.k.weight", "mlp.down.weight"}


@pytest.mark.parametrize(
    ("old", "new", "fragment"),
    [
        ("source", "sauce", "expected ['classes', 'layers', 'model_type', 'source', 'units']"),
        ('"a paper"', "1", "source is not a text"),
        ('"model.layers"', '""', "layers is not a text"),
        ('["LambForCausalLM"]', '"LambForCausalLM"', "classes is not a list of names"),
        ('["LambForCausalLM"]', "[]", "classes is not a list of names"),
        ('"lamb"', '"sheep"', "model_type is 'sheep', which is not the file's name"),
        ("units = [", "units = [1,", "unit 1 has not exactly a name and linears"),
        ('["attention.q", "attention.k"]', "[]", "linears of unit 'attention.qkv' is not a list of names"),
        ('["mlp.down"]', '["mlp.up"]', "unit 'mlp.down' has a single Linear and must bear its name"),
        ('["attention.q", "attention.k"]', '["attention.q", "mlp.down"]', "a Linear is in two units"),
        ("attention.qkv", "mlp.down", "two units have the same name"),
        ("units = [", "units = ", "is not TOML"),
        ("units = [", 'mtp = { block = "mtp.layers.0" }\nunits = [', "mtp is not a table of the names ['block', "),
    ],
)
def test_bad_entry(old: str, new: str, fragment: str) -> None:
    assert old in GOOD
    with pytest.raises(ModelError) as caught:
        parse_entry(GOOD.replace(old, new, 1), "lamb.toml")
    assert fragment in str(caught.value)
    assert str(caught.value).startswith("prismaquant/model/architectures/lamb.toml: ")


def test_config_without_classes_goes_by_its_model_type() -> None:
    assert find_architecture({"model_type": "qwen3"}, "config.json").model_type == "qwen3"


def test_one_entry_is_all_that_a_new_architecture_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise of the error message: write the file, and the folder opens."""
    folder = build("llama", tmp_path / "model")
    hostile.edit_config(folder, model_type="lamb", architectures=["LambForCausalLM"])
    llama = (Path(architectures.__file__).parent / "llama.toml").read_text()
    entries = tmp_path / "architectures"
    entries.mkdir()
    monkeypatch.setattr(architectures.resources, "files", lambda package: entries)
    with pytest.raises(ModelError, match="unknown architecture"):
        open_model(folder)
    entry = llama.replace('"llama"', '"lamb"').replace("LlamaForCausalLM", "LambForCausalLM")
    (entries / "lamb.toml").write_text(entry)
    assert len(open_model(folder).units) == 8
