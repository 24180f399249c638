"""The menu: activations, target devices and pins leave of the schemes what they say, and say what they cannot do."""

from __future__ import annotations

import pytest

import prismaquant as pq
from prismaquant.errors import ArgumentError, FormatError
from prismaquant.formats import DEFAULT_MENU
from prismaquant.planning.menu import menu_of
from prismaquant.planning.pins import with_pinned
from support.hand_made import model_of, plan, sensitivity_of
from support.tiny_models import build

SHAPE = (64, 128)
PRICES = {"NVFP4": 4.0, "NVFP4A16": 1.0, "FP8_DYNAMIC": 0.5, "BF16": 0.0}


def _names(**arguments):
    return menu_of(model_of([[SHAPE]]), **arguments).names


@pytest.mark.parametrize(
    ("activations", "names"),
    [
        ("native", ("NVFP4", "FP8_DYNAMIC", "BF16")),
        ("16", ("NVFP4A16", "FP8A16", "BF16")),
        ("auto", DEFAULT_MENU),
    ],
)
def test_activations_choose_among_rows_with_one_weight_format(activations, names):
    assert _names(activations=activations) == names


def test_native_keeps_a_row_that_has_no_other():
    assert _names(schemes=["NVFP4A16", "BF16"]) == ("NVFP4A16", "BF16")


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("B200", ("NVFP4", "FP8_DYNAMIC", "BF16")),
        ("rtx 5090", ("NVFP4", "FP8_DYNAMIC", "BF16")),
        ("gb10", ("NVFP4", "FP8_DYNAMIC", "BF16")),
        ("hopper", ("NVFP4A16", "FP8_DYNAMIC", "BF16")),
        ("ada", ("NVFP4A16", "FP8_DYNAMIC", "BF16")),
        ("a100", ("NVFP4A16", "FP8A16", "BF16")),
        ("MI300X", ("FP8_DYNAMIC", "BF16")),
    ],
)
def test_a_device_leaves_what_it_serves(device, names):
    assert _names(target_device=device) == names


def test_what_a_device_serves_with_other_activations_is_noted():
    model = model_of([[SHAPE]])
    made = plan(
        model,
        sensitivity_of(model, [PRICES]),
        bpw=9,
        schemes=["NVFP4", "NVFP4A16", "FP8_DYNAMIC", "BF16"],
        target_device="ampere",
    )
    assert [note.text for note in made.notes] == [
        "FP8_DYNAMIC is served with 16-bit activations on ampere: its price counts rounded inputs, and is too high"
    ]


@pytest.mark.parametrize(
    ("pins", "schemes"),
    [
        (["u0=BF16"], ["BF16", "NVFP4A16", "NVFP4A16"]),
        (["u?.l1=FP8"], ["NVFP4A16", "FP8_DYNAMIC", "NVFP4A16"]),
        (["re:u[02]=FP8_DYNAMIC"], ["FP8_DYNAMIC", "NVFP4A16", "FP8_DYNAMIC"]),
        (["*=FP8", "u1=BF16"], ["FP8_DYNAMIC", "BF16", "FP8_DYNAMIC"]),
        ("u2=NVFP4", ["NVFP4A16", "NVFP4A16", "NVFP4"]),
    ],
)
def test_pins_leave_one_scheme_and_the_last_one_counts(pins, schemes):
    model = model_of([[SHAPE], [SHAPE, SHAPE], [SHAPE]])
    made = plan(model, sensitivity_of(model, [PRICES] * 3), bpw=15, pins=pins, schemes=["NVFP4A16"])
    assert [unit.scheme for unit in made.units] == schemes


def test_pins_hold_in_a_uniform_plan():
    assert [unit.scheme for unit in plan(model_of([[SHAPE]] * 2), schemes=["NVFP4A16"], pins=["u1=BF16"]).units] == [
        "NVFP4A16",
        "BF16",
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"schemes": []}, ArgumentError, "schemes is empty"),
        ({"schemes": ["NVFP5"]}, FormatError, "did you mean 'NVFP4'"),
        ({"activations": "8"}, ArgumentError, "activations is '8'; accepted: native, 16, auto"),
        (
            {"schemes": ["FP8_DYNAMIC"], "activations": "16"},
            ArgumentError,
            "every scheme of the menu quantizes activations",
        ),
        ({"a16_share": 0.2}, ArgumentError, "a16_share is for activations='auto'"),
        ({"a16_share": 2, "activations": "auto"}, ArgumentError, "a16_share is 2, expected a share from 0 to 1"),
        ({"target_device": "H10"}, ArgumentError, "unknown device 'H10'; known: B300, .*MI355X, .*did you mean 'H100'"),
        ({"target_device": "MI300X", "schemes": ["NVFP4"]}, ArgumentError, "MI300X serves none of NVFP4"),
        ({"pins": ["u0"]}, ArgumentError, "pin 'u0' is not PATTERN=SCHEME"),
        ({"pins": ["u0.l9=BF16"]}, ArgumentError, "pin 'u0.l9=BF16' names no unit and no Linear; near: u0.l"),
        ({"pins": ["re:(=BF16"]}, ArgumentError, "no regular expression"),
        ({"pins": ["u0=FP9"]}, FormatError, "unknown scheme 'FP9'"),
        ({"pins": ["u0=NVFP4"], "target_device": "MI300X"}, ArgumentError, "MI300X does not serve NVFP4"),
        (
            {"pins": ["u0.l0=BF16", "u0.l1=FP8"]},
            ArgumentError,
            "contradict each other: u0.l0, u0.l1 must share one scheme",
        ),
        ({"pins": ["u1=NVFP4"]}, ArgumentError, "pin 'u1=NVFP4': u1.l0: .*24"),
    ],
)
def test_what_cannot_be_is_refused(arguments, error, text):
    model = model_of([[SHAPE, SHAPE], [(64, 24)]])
    with pytest.raises(error, match=text):
        menu_of(with_pinned(model, arguments.get("pins", ())), **arguments)


def _four(count):
    model = model_of([[SHAPE]] * count)
    prices = [{**PRICES, "NVFP4": 4.0 + number} for number in range(count)]
    return model, sensitivity_of(model, prices)


@pytest.mark.parametrize(("share", "kept"), [(None, 5), (1, 5), (0.6, 3), (0.5, 2), (0.1, 0), (0, 0)])
def test_a_share_of_the_operations_keeps_16_bit_activations_where_they_buy_most(share, kept):
    model, sensitivity = _four(5)
    made = plan(
        model, sensitivity, bpw=4.51, schemes=["NVFP4", "NVFP4A16", "BF16"], activations="auto", a16_share=share
    )
    assert [unit.scheme for unit in made.units] == ["NVFP4"] * (5 - kept) + ["NVFP4A16"] * kept
    assert made.a16_share == pytest.approx(kept / 5)
    assert made.lower_bound == pytest.approx(made.predicted_kl)


def test_what_engines_get_wrong_is_noted():
    model = model_of([[SHAPE]])
    note, old = plan(model, schemes=["MXFP4A16"]).notes
    assert {note.code, old.code} == {"engine-fault"}
    assert note.text.startswith("vLLM up to 0.33 quantizes the activations all the same")
    assert old.text.startswith("compressed-tensors 0.15 does not decode this scheme")
    assert [note.text for note in plan(model, schemes=["MXFP4"]).notes] == [old.text]
    assert not plan(model, schemes=["NVFP4"]).notes  # a fault of experts


def test_native_activations_are_no_share():
    model, sensitivity = _four(2)
    assert plan(model, sensitivity, bpw=4.51, schemes=["NVFP4A16", "BF16"]).a16_share == 0


def test_the_default_menu_is_what_of_it_was_measured():
    model = model_of([[SHAPE]])
    sensitivity = sensitivity_of(model, [{"NVFP4A16": 1.0, "FP8_DYNAMIC": 0.5}])
    assert plan(model, sensitivity, bpw=5, schemes=DEFAULT_MENU).units[0].scheme == "NVFP4A16"


def test_experts_do_not_get_what_an_engine_refuses_unless_they_are_pinned(tmp_path):
    mixture = pq.open(build("qwen3_moe", tmp_path / "model"))
    found = pq.plan(mixture, schemes=["FP8A16"])
    scheme_of = {unit.name: unit.scheme for unit in found.units}
    assert {scheme_of[unit.name] for unit in mixture.units if unit.experts} == {"BF16"}
    assert {scheme_of[unit.name] for unit in mixture.units if not unit.experts} == {"FP8A16"}
    assert any("vLLM up to 0.33 refuses experts of this scheme" in note.text for note in found.notes)
    pinned = pq.plan(mixture, schemes=["FP8A16"], pins=["*.experts=FP8A16"])
    assert {unit.scheme for unit in pinned.units} == {"FP8A16"}
    assert any("vLLM up to 0.33 refuses experts of this scheme" in note.text for note in pinned.notes)
