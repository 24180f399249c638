"""Experts that are solved for the inputs of all tokens: their Grams know all, gradients and prices only their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prismaquant as pq
from prismaquant.calibration.collect import collect
from prismaquant.calibration.experts import coverage, pool
from prismaquant.errors import StageFileError
from prismaquant.model import Model
from prismaquant.streaming import Visit, Windows, walk

SEQ_LEN = 16


def of_layer(many_experts: Model, expert_ids: np.ndarray, show_all: tuple[int, ...]) -> list[Visit]:
    return [x for x in walk(many_experts, [Windows(expert_ids, 2)], batch_windows=2, show_all=show_all) if x.layer == 1]


def test_grams_are_those_of_all_tokens_and_the_rest_is_as_before(many_experts: Model, expert_ids: np.ndarray) -> None:
    unit = many_experts.units[-1]
    routed, everything = (of_layer(many_experts, expert_ids, show_all) for show_all in ((), (0,)))
    few, all_tokens = collect(routed, grams=True), collect(everything, grams=True)
    assert coverage(unit, few) == coverage(unit, all_tokens)
    assert min(coverage(unit, few)) == 0
    hidden: dict[int, torch.Tensor] = {}  # token -> what enters the bank
    for visit in routed:
        for linear in unit.linears[::3]:
            seen = visit.linears[linear.name]
            first = visit.batch.window * SEQ_LEN
            hidden |= {first + int(at): x for at, x in zip(seen.positions, seen.input, strict=True)}
    x = torch.stack([hidden[token] for token in range(expert_ids.size)])
    for expert in range(unit.experts):
        gate, up, down = unit.linears[3 * expert : 3 * expert + 3]
        inner = torch.nn.functional.silu(x @ weight(many_experts, gate).T) * (x @ weight(many_experts, up).T)
        for linear, inputs in ((gate, x), (up, x), (down, inner)):
            old, new = few[linear.name], all_tokens[linear.name]
            assert new.grams is not None
            assert new.grams.tokens == expert_ids.size
            gram = torch.as_tensor(new.grams.gram)
            torch.testing.assert_close(gram, inputs.T @ inputs, rtol=1e-3, atol=1e-5 * float(gram.abs().max()))
            assert new.input_amax == pytest.approx(float(inputs.abs().max()), rel=1e-4)
            assert new.fisher_trace == pytest.approx(old.fisher_trace, rel=1e-5)
            assert new.tokens == old.tokens
            assert new.grams.output_tokens == old.tokens * 2


def weight(many_experts: Model, linear: Any) -> torch.Tensor:
    return torch.from_numpy(many_experts.read_weight(linear))


def test_an_expert_that_no_token_chose_has_the_gradients_of_the_bank(
    many_experts: Model, expert_ids: np.ndarray
) -> None:
    unit = many_experts.units[-1]
    sums = collect(of_layer(many_experts, expert_ids, (0,)), grams=True)
    own = {name: each.grams for name, each in sums.items() if each.grams is not None}
    pooled = pool(unit, own)
    for linear in unit.linears:
        assert pooled[linear.name].pooled_gram is None
        assert pooled[linear.name].gram is own[linear.name].gram
        assert pooled[linear.name].output_tokens == (own[linear.name].output_tokens or 2 * expert_ids.size)


def test_other_experts_make_another_sensitivity(many_experts: Model, expert_ids: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", expert_ids)
    settings = {"samples": 1, "price_samples": 1, "seq_len": SEQ_LEN, "price_probes": 1, "work_dir": tmp_path / "work"}
    found = pq.probe(many_experts, tmp_path / "ids.npy", calibrate_all_experts=True, out=tmp_path / "s", **settings)
    assert found.calibrate_all_experts
    assert (
        pq.probe(many_experts, tmp_path / "ids.npy", calibrate_all_experts=True, out=tmp_path / "s", **settings)
        == found
    )
    with pytest.raises(StageFileError, match="made with another"):
        pq.probe(many_experts, tmp_path / "ids.npy", out=tmp_path / "s", **{**settings, "work_dir": tmp_path / "other"})
    with pytest.raises(StageFileError):
        pq.probe(many_experts, tmp_path / "ids.npy", **settings)
