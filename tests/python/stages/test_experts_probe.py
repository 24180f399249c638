"""Statistics of experts: those of the tokens that chose them, and of the whole bank where these are few."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from prismaquant.calibration import PRICES, Draw, probe
from prismaquant.calibration.collect import collect
from prismaquant.calibration.experts import coverage, pool
from prismaquant.cli.probe import show
from prismaquant.files import sensitivity as file
from prismaquant.model import Model
from prismaquant.rendering.cache import RenderCache
from prismaquant.streaming import Windows, walk

MENU = ("NVFP4", "FP8_DYNAMIC", "BF16")
SEQ_LEN = 16


def test_sums_are_over_the_tokens_that_chose_the_expert(many_experts: Model, expert_ids: np.ndarray) -> None:
    visits = [visit for visit in walk(many_experts, [Windows(expert_ids, 2)], batch_windows=2) if visit.layer == 1]
    unit = many_experts.units[-1]
    sums = collect(visits, grams=True)
    seen = coverage(unit, sums)
    assert len(seen) == 16
    assert sum(seen) == expert_ids.size  # one expert per token
    assert min(seen) == 0
    for linear in unit.linears:
        x = torch.cat([visit.linears[linear.name].input for visit in visits]).double()
        g = torch.cat([visit.linears[linear.name].gradients for visit in visits], dim=1).double()
        grams = sums[linear.name].grams
        assert grams is not None
        assert (grams.tokens, grams.output_tokens) == (len(x), 2 * len(x))
        torch.testing.assert_close(torch.as_tensor(grams.gram).double(), x.T @ x, rtol=1e-4, atol=1e-5)
        vectors = g.flatten(0, 1)
        near = 1e-5 * float(torch.as_tensor(grams.output_gram).abs().max())
        torch.testing.assert_close(
            torch.as_tensor(grams.output_gram).double(), vectors.T @ vectors, rtol=1e-4, atol=near
        )
        trace = (g.square().sum(dim=2).mean(dim=0) @ x.square().sum(dim=1)).item()
        assert sums[linear.name].fisher_trace == pytest.approx(trace, rel=1e-4)


def test_experts_with_few_tokens_get_the_statistics_of_the_bank(many_experts: Model, expert_ids: np.ndarray) -> None:
    visits = [visit for visit in walk(many_experts, [Windows(expert_ids, 2)], batch_windows=2) if visit.layer == 1]
    unit = many_experts.units[-1]
    own = {name: sums.grams for name, sums in collect(visits, grams=True).items() if sums.grams is not None}
    pooled = pool(unit, own)
    for number in range(3):
        alike = [linear.name for linear in unit.linears[number::3]]
        whole = sum(torch.as_tensor(own[name].gram) for name in alike)
        for name in alike:
            if own[name].tokens == 0:
                assert pooled[name].tokens == expert_ids.size
                torch.testing.assert_close(torch.as_tensor(pooled[name].gram), whole)
                assert pooled[name].output_tokens == 2 * expert_ids.size
            elif own[name].tokens < 8:
                assert pooled[name].pooled_tokens == expert_ids.size
                torch.testing.assert_close(torch.as_tensor(pooled[name].pooled_gram), whole)
                assert pooled[name].gram is own[name].gram
            else:
                assert pooled[name] is own[name]
    other = many_experts.units[-2]
    assert pool(other, own) == {linear.name: own[linear.name] for linear in other.linears}


def test_a_probe_prices_banks_and_says_what_they_saw(
    many_experts: Model, expert_ids: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = Draw(expert_ids[:1], expert_ids[1:2], expert_ids[2:])
    cache = RenderCache(tmp_path, many_experts.fingerprint, "best", "x")
    found = probe(many_experts, draw, schemes=MENU, preset="best", prices=tuple(PRICES), price_probes=2, cache=cache)
    for unit in found.units:
        assert [candidate.scheme for candidate in unit.candidates] == list(MENU)
        for candidate in unit.candidates:
            assert all(np.isfinite(price) for price in candidate.prices.values())
            assert all((price > 0) == (candidate.scheme != "BF16") for price in candidate.prices.values())
        assert len(unit.coverage) == (16 if unit.name.endswith("experts") else 0)
    bank = found.units[-1]
    assert sum(bank.coverage) == SEQ_LEN
    assert bank.pooled == tuple(expert for expert, tokens in enumerate(bank.coverage) if tokens < 8)
    file.write(tmp_path / "sensitivity.safetensors", found)
    again = file.read(tmp_path / "sensitivity.safetensors")
    assert again.units == found.units
    show(again)
    text = capsys.readouterr().out
    assert "tokens per expert, 32 experts: least 0, median" in text
    assert "were solved for with the statistics of all experts" in text


def test_units_that_are_no_banks_have_no_coverage(many_experts: Model) -> None:
    field = next(each for each in dataclasses.fields(file.UnitSensitivity) if each.name == "coverage")
    assert field.default == ()  # files that know nothing of experts can be read
