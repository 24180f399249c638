"""`diff`: which units two plans store differently, from recipes and from folders."""

from __future__ import annotations

from dataclasses import replace

import pytest

import prismaquant as pq
from prismaquant.errors import StageFileError
from prismaquant.files import plan as plan_file
from support.hand_made import model_of, plan, sensitivity_of
from support.plans import cycled
from support.tiny_models import build


def _plans():
    model = model_of([[(64, 128)]] * 3)
    prices = [{"NVFP4A16": float(4 - number), "BF16": 0.0} for number in range(3)]
    sensitivity = sensitivity_of(model, prices)
    return tuple(plan(model, sensitivity, bpw=bpw, schemes=("NVFP4A16", "BF16")) for bpw in (5, 9))


def test_units_bytes_and_losses():
    before, after = _plans()
    found = pq.diff(before, after)
    (unit,) = found.units
    assert (unit.name, unit.before, unit.after) == ("u0", "NVFP4A16", "BF16")
    assert unit.bytes == found.bytes == after.bytes - before.bytes
    assert unit.price == found.predicted_kl == -4
    assert (found.same, found.same_model) == (2, True)


def test_equal_plans_do_not_differ():
    before, _ = _plans()
    found = pq.diff(before, before)
    assert (found.units, found.same, found.bytes, found.predicted_kl) == ((), 3, 0, 0)


def test_units_of_one_plan_only_and_prices_of_different_kinds():
    before, after = _plans()
    shorter = replace(after, units=after.units[1:], price="kfac", model="sha256:other")
    found = pq.diff(before, shorter)
    assert (found.units[0].name, found.units[0].after, found.units[0].price) == ("u0", None, None)
    assert found.predicted_kl is None
    assert not found.same_model


def test_recipes_and_folders_are_read(tmp_path):
    source = pq.open(build("llama", tmp_path / "source"))
    pq.export(source, cycled(source, ["FP8_DYNAMIC"]), tmp_path / "out")
    plan_file.write(tmp_path / "recipe.json", cycled(source, ["FP8_DYNAMIC", "BF16"]))
    found = pq.diff(tmp_path / "out", tmp_path / "recipe.json")
    assert len(found.units) == len(source.units) // 2
    assert pq.diff(tmp_path / "out", tmp_path / "out").units == ()
    with pytest.raises(StageFileError):
        pq.diff(tmp_path / "source", tmp_path / "recipe.json")
