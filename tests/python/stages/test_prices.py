"""Sampled residuals have the right second moment, and prices are the formulas they claim to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prismaquant.calibration.collect import LinearStatistics
from prismaquant.calibration.prices import PRICES, LinearErrors, UnitErrors
from prismaquant.model import open_model
from prismaquant.rendering.render import Grams
from prismaquant.streaming import Observation, Windows, walk
from prismaquant.streaming.residual import Signs, residual
from support import autograd_oracle
from support.tiny_models import build


def test_residual_has_the_second_moment_of_the_fisher_matrix() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0, -3.0])
    p = torch.softmax(logits.double(), dim=0)
    draws = 200_000
    r = residual(logits.expand(draws, 5), Signs(0, 0, 0).draw(draws, 5)).double()
    moment = r.T @ r / draws
    expected = torch.diag(p) - torch.outer(p, p)
    torch.testing.assert_close(moment, expected, rtol=0, atol=4e-3)
    assert r.sum(dim=1).abs().max() < 1e-6  # adding a constant to all logits changes nothing


def test_residual_is_the_factor_of_the_matrix_formula() -> None:
    logits = torch.randn(7, 33, generator=torch.Generator().manual_seed(3))
    signs = Signs(1, 2, 3).draw(7, 33)
    got = residual(logits, signs)
    for token in range(7):
        p = torch.softmax(logits[token].double(), dim=0).numpy()
        expected = autograd_oracle.residual_matrix(p) @ np.where(signs[token].numpy(), 1.0, -1.0)
        np.testing.assert_allclose(got[token], expected, atol=1e-6)


def test_signs_are_fair_distinct_and_independent_of_the_step() -> None:
    whole = Signs(5, 6, 0).draw(64, 100)
    signs = Signs(5, 6, 0)
    assert torch.equal(whole, torch.cat([signs.draw(7, 100), signs.draw(57, 100)]))
    assert abs(float(whole.float().mean()) - 0.5) < 0.03
    others = [Signs(*key).draw(64, 100) for key in ((4, 6, 0), (5, 7, 0), (5, 6, 1))]
    assert all(0.4 < float((whole == other).float().mean()) < 0.6 for other in others)


WINDOWS, TOKENS, PROBES, SCHEMES = 3, 30, 2, 2
NAMES = ("a", "b")


@pytest.fixture(scope="module")
def sample() -> dict[str, LinearErrors]:
    """Two Linears of a unit on three windows of ten tokens, with the errors of two schemes."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((TOKENS, 6)) * np.array([1, 5, 0.1, 1, 2, 1])
    found = {}
    for name, rows in zip(NAMES, (4, 5), strict=True):
        gradients = rng.standard_normal((PROBES, TOKENS, rows)) * np.linspace(0, 2, rows)
        deltas = rng.standard_normal((SCHEMES, rows, 6))
        outputs = np.einsum("tc,src->str", shared, deltas)
        gram = np.einsum("kto,ktp->op", gradients, gradients)
        grams = Grams(torch.zeros(6, 6), TOKENS, torch.from_numpy(gram).float(), PROBES * TOKENS)
        found[name] = LinearErrors(
            Observation(*(torch.from_numpy(part).float() for part in (shared, gradients)), torch.zeros(rows, 6)),
            torch.from_numpy(outputs).float(),
            torch.from_numpy(np.square(deltas).mean(axis=(1, 2))),
            LinearStatistics(TOKENS, 0.0, torch.zeros(rows), 1.0, grams),
        )
    return found


def naive(sample: dict[str, LinearErrors], price: str, scheme: int, first: int, last: int) -> float:
    """The price of the tokens from ``first`` to ``last``, summed, by loops."""
    total, products = 0.0, np.zeros((PROBES, TOKENS))
    for linear in sample.values():
        x, g = linear.seen.input.double().numpy(), linear.seen.gradients.double().numpy()
        dy = linear.outputs[scheme].double().numpy()
        f = np.square(g).mean(axis=(0, 1))
        gram = np.einsum("kto,ktp->op", g, g) / (PROBES * TOKENS)
        for t in range(first, last):
            if price == "fisher-trace":
                mean_square = np.mean([g[k, t] @ g[k, t] for k in range(PROBES)])
                total += 0.5 * mean_square * (x[t] @ x[t]) * float(linear.weight_mse[scheme])
            elif price == "fisher-gram":
                total += 0.5 * float(f @ dy[t] ** 2)
            elif price == "kfac":
                total += 0.5 * float(dy[t] @ gram @ dy[t])
            products[:, t] += np.einsum("ko,o->k", g[:, t], dy[t])
    part = products[:, first:last]
    if price == "directional":
        total = 0.5 * float(np.square(part).mean(axis=0).sum())
    elif price == "directional-sequence":
        total = 0.5 * float(np.square(part.sum(axis=1)).mean())
    return total


@pytest.mark.parametrize("price", PRICES)
def test_prices_are_their_formulas_window_by_window(sample: dict[str, LinearErrors], price: str) -> None:
    of_price = PRICES[price]()
    for tokens, windows in ((slice(0, 20), 2), (slice(20, 30), 1)):  # in two batches
        of_price.add(UnitErrors([_slice(linear, tokens) for linear in sample.values()], 10 * windows, windows))
    found = of_price.finish()
    assert found.dtype == torch.float64
    expected = [[naive(sample, price, scheme, first, first + 10) for first in (0, 10, 20)] for scheme in range(SCHEMES)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("price", PRICES)
def test_an_expert_sees_its_tokens_only(sample: dict[str, LinearErrors], price: str) -> None:
    """An expert with some tokens costs what a Linear costs that has no error, or gradient, at the others."""
    positions = torch.tensor([3, 4, 11, 25])
    expert = {name: _pick(linear, positions) for name, linear in sample.items()}
    silenced = {name: _silence(linear, positions) for name, linear in sample.items()}
    costs = []
    for linears in (expert, silenced):
        of_price = PRICES[price]()
        of_price.add(UnitErrors(list(linears.values()), TOKENS, WINDOWS))
        costs.append(of_price.finish())
    if price == "fisher-gram":  # its mean squared gradient is that of the tokens that were seen
        costs[1] *= TOKENS / len(positions)
    torch.testing.assert_close(*costs)
    assert costs[0].count_nonzero() == SCHEMES * WINDOWS


def _slice(linear: LinearErrors, tokens: slice) -> LinearErrors:
    seen = replace(linear.seen, input=linear.seen.input[tokens], gradients=linear.seen.gradients[:, tokens])
    return replace(linear, seen=seen, outputs=linear.outputs[:, tokens])


def _pick(linear: LinearErrors, positions: torch.Tensor) -> LinearErrors:
    seen = replace(
        linear.seen,
        input=linear.seen.input[positions],
        gradients=linear.seen.gradients[:, positions],
        positions=positions,
    )
    return replace(linear, seen=seen, outputs=linear.outputs[:, positions])


def _silence(linear: LinearErrors, positions: torch.Tensor) -> LinearErrors:
    mask = torch.zeros(TOKENS, 1).index_fill_(0, positions, 1.0)
    seen = replace(linear.seen, gradients=linear.seen.gradients * mask)
    return replace(linear, seen=seen, outputs=linear.outputs * mask)


def test_fisher_gram_predicts_the_loss_of_one_linear() -> None:
    """A model that is one Linear with zero weight: its predictions are uniform, so rows and inputs are independent."""
    rng = np.random.default_rng(2)
    tokens, columns, vocabulary = 4000, 8, 16
    x = rng.standard_normal((tokens, columns)) @ rng.standard_normal((columns, columns))
    logits = torch.zeros(tokens, vocabulary)
    g = residual(logits, Signs(0, 0, 0).draw(tokens, vocabulary))
    delta = np.zeros((vocabulary, columns), np.float32)
    delta[3] = 0.01 * rng.standard_normal(columns)
    outputs = torch.from_numpy(x @ delta.T)
    changed = torch.log_softmax(outputs, dim=1)
    divergence = float((-np.log(vocabulary) - changed).sum(dim=1).mean() / vocabulary)
    seen = Observation(torch.from_numpy(x).float(), g[None], torch.zeros(vocabulary, columns))
    known = LinearStatistics(tokens, 0.0, torch.zeros(vocabulary), 1.0)
    for price in ("fisher-gram", "directional"):
        of_price = PRICES[price]()
        of_price.add(UnitErrors([LinearErrors(seen, outputs[None].float(), torch.zeros(1), known)], tokens, 1))
        assert float(of_price.finish()) / tokens == pytest.approx(divergence, rel=0.06)


def test_gradients_predict_the_measured_divergence(tmp_path: Path) -> None:
    """Half the mean square of ``<g, dY>`` over a sequence is the KL divergence that a small change really makes."""
    folder = build("llama", tmp_path, dtype="float32", vocab_size=64)
    name, windows, probes = "model.layers.0.mlp.down_proj", 12, 24
    ids = np.random.default_rng(0).integers(0, 64, size=(windows, 16))
    model = autograd_oracle.load(folder)
    with torch.no_grad():
        before = torch.log_softmax(autograd_oracle.forward(model, ids).double(), dim=-1)
        weight = model.get_submodule(name).weight
        delta = 0.002 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(4))
        weight += delta
        after = torch.log_softmax(autograd_oracle.forward(model, ids).double(), dim=-1)
    divergence = float((before.exp() * (before - after)).sum(dim=-1).mean())
    seen = [visit.linears[name] for visit in walk(open_model(folder), [Windows(ids, probes)]) if visit.layer == 0]
    x, g = torch.cat([s.input for s in seen]), torch.cat([s.gradients for s in seen], dim=1)
    dots = (g * (x @ delta.T)).sum(dim=2).view(probes, windows, -1)
    predicted = 0.5 * float(dots.sum(dim=2).square().mean(dim=0).sum()) / ids.size
    assert predicted == pytest.approx(divergence, rel=0.3)  # 288 squares of about normal numbers: +- 8 %
