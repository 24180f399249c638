"""Tensor parallelism: a plan takes only what can be divided, and `verify` names what cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

import prismaquant as pq
from prismaquant.errors import ArgumentError
from prismaquant.formats import blocks, get_scheme
from prismaquant.model.parallel import why_not_divided
from prismaquant.planning.menu import menu_of
from support.hand_made import model_of, plan
from support.plans import cycled
from support.tiny_models import build


@pytest.mark.parametrize(
    ("name", "shape", "devices", "reason"),
    [
        ("mlp.up_proj", (96, 64), 1, None),
        ("mlp.up_proj", (96, 64), 2, None),
        ("mlp.up_proj", (97, 64), 2, "its 97 rows cannot be divided among 2 devices"),
        ("mlp.down_proj", (97, 64), 2, None),
        ("mlp.down_proj", (97, 64), 4, None),
        ("mlp.down_proj", (97, 64), 8, "its columns on each of 8 devices, 8, are not a multiple of 16"),
        ("self_attn.o_proj", (64, 66), 4, "its 66 columns cannot be divided among 4 devices"),
        ("self_attn.k_proj", (32, 64), 8, None),  # two heads: devices share them
    ],
)
def test_outputs_are_divided_or_inputs_where_outputs_were(name, shape, devices, reason):
    assert why_not_divided(name, shape, devices, blocks=(1, 16), kv_heads=2) == reason


@pytest.mark.parametrize(
    ("scheme", "wanted"),
    [("NVFP4", (1, 16)), ("MXFP8", (1, 32)), ("W4A16", (1, 128)), ("FP8_DYNAMIC", (1, 1)), ("FP8_BLOCK", (128, 128))],
)
def test_blocks_that_stay_together(scheme, wanted):
    assert blocks(get_scheme(scheme)) == wanted


def _down_proj(columns):
    model = model_of([[(64, columns)]])
    (unit,) = model.units
    (linear,) = unit.linears
    return replace(model, units=(replace(unit, linears=(replace(linear, name="u0.down_proj"),)),))


def test_a_plan_leaves_out_what_cannot_be_divided():
    model = _down_proj(256)
    assert plan(model, schemes=["W4A16"], tensor_parallel=2).units[0].scheme == "W4A16"
    made = plan(model, schemes=["W4A16"], tensor_parallel=4)
    assert made.units[0].scheme == "BF16"
    assert "its columns on each of 4 devices, 64, are not a multiple of 128" in made.notes[0].text


def test_a_pin_that_cannot_be_divided_is_refused():
    with pytest.raises(ArgumentError, match=r"pin 'u0=W4A16': u0\.down_proj: its columns on each of 4 devices"):
        menu_of(_down_proj(256), pins=["u0=W4A16"], tensor_parallel=4)


def test_verify_names_what_cannot_be_divided(tmp_path):
    source = pq.open(build("llama", tmp_path / "source"))  # o_proj 64 x 64, down_proj 64 x 128
    pq.export(source, cycled(source, ["NVFP4A16"]), tmp_path / "out")
    assert pq.verify(tmp_path / "out", tensor_parallel=4).ok
    failures = pq.verify(tmp_path / "out", tensor_parallel=8).failures
    assert {failure.rule for failure in failures} == {"tensor-parallel"}
    assert {failure.where.rpartition(".")[2] for failure in failures} == {"o_proj"}
    assert "8, are not a multiple of 16" in failures[0].text
