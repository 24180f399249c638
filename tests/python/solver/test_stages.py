"""Stage classes and presets are those of C++."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, fields

import pytest

from prismaquant import _core
from prismaquant.errors import FormatError
from prismaquant.solver import (
    CALIBRATED_PRESET,
    DEFAULT_PRESET,
    Gptq,
    describe_presets,
    list_presets,
    preset_needs_gram,
    stages,
)
from prismaquant.solver.stages import STAGES, stage_of, stages_of


def test_classes_have_the_options_and_defaults_of_cpp() -> None:
    solvers = _core.list_solvers()
    assert [name for name, _ in solvers] == list(STAGES)
    for name, defaults in solvers:
        assert asdict(STAGES[name]()) == defaults
        assert [field.name for field in fields(STAGES[name])] == list(defaults)


def test_classes_are_exported_under_their_names() -> None:
    for name, stage in STAGES.items():
        assert stage.__name__ == "".join(word.title() for word in name.split("_"))
        assert stage.__name__ in stages.__all__


@pytest.mark.parametrize("name", ["order", "scales"])
def test_every_spelling_is_known_to_cpp(name: str) -> None:
    import typing

    for value in typing.get_args(typing.get_type_hints(Gptq)[name]):
        chain = stages_of([("gptq", {name: value})])
        assert _core.shared_global_scale([], "nvfp4", chain) == 1.0


def test_a_stage_is_an_object_a_name_or_a_name_with_options() -> None:
    assert stage_of("gptq") == stage_of(("gptq", {})) == Gptq()
    assert stage_of(("gptq", {"order": "natural"})) == Gptq(order="natural")
    with pytest.raises(FrozenInstanceError):
        Gptq().order = "natural"  # type: ignore[misc]


def test_presets() -> None:
    assert list_presets() == ("rtn", "scale_sweep", "fast", "best")
    assert DEFAULT_PRESET in list_presets()
    for preset in describe_presets():
        assert preset.what
        assert preset.cost
        assert preset.peak_memory
        assert preset.needs_gram == (preset.name in ("fast", "best"))
    assert [type(stage) for stage in describe_presets()[-1].stages] == [
        STAGES[name] for name in ("shift", "gptq", "coordinate_descent", "two_sided")
    ]


def test_which_presets_need_a_gram() -> None:
    assert {name: preset_needs_gram(name) for name in list_presets()} == {
        preset.name: preset.needs_gram for preset in describe_presets()
    }
    assert not preset_needs_gram(DEFAULT_PRESET)
    assert preset_needs_gram(CALIBRATED_PRESET)
    with pytest.raises(FormatError, match=r"unknown preset 'bets'; .*best"):
        preset_needs_gram("bets")
