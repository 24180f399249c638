"""Sampled residuals have the right second moment, and prices are the formulas they claim to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prismaquant.calibration.collect import LinearStatistics
from prismaquant.calibration.price import PRICES, fisher_gram, fisher_trace
from prismaquant.model import open_model
from prismaquant.streaming import walk
from prismaquant.streaming.residual import Signs, residual
from support import autograd_oracle
from support.tiny_models import build


def statistics(x: np.ndarray, g: np.ndarray) -> LinearStatistics:
    """Naive sums of inputs ``[tokens, columns]`` and gradients ``[tokens, rows]``."""
    trace = sum(float((np.outer(g[t], x[t]) ** 2).sum()) for t in range(len(x)))
    gram = sum(np.outer(row, row) for row in x)
    return LinearStatistics(
        len(x),
        trace,
        torch.from_numpy((g**2).sum(axis=0, dtype=np.float64)),
        torch.from_numpy(gram).float(),
        float(abs(x).max()),
    )


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


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 6)) * np.array([1, 5, 0.1, 1, 2, 1])
    g = rng.standard_normal((30, 4)) * np.array([1, 0.2, 3, 0])
    return x, g, rng.standard_normal((4, 6)).astype(np.float32)


def test_fisher_trace_is_half_trace_times_mean_square(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, g, delta = sample
    trace = np.mean([(g[t] @ g[t]) * (x[t] @ x[t]) for t in range(30)])
    expected = 0.5 * trace * np.mean(delta.astype(np.float64) ** 2)
    assert fisher_trace(torch.from_numpy(delta), statistics(x, g)) == pytest.approx(expected, rel=1e-6)


def test_fisher_gram_is_the_naive_quadratic_form(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, g, delta = sample
    gram = sum(np.outer(x[t], x[t]) for t in range(30)) / 30
    expected = 0.0
    for row in range(4):
        f = np.mean([g[t, row] ** 2 for t in range(30)])
        expected += 0.5 * f * (delta[row] @ gram @ delta[row])
    assert fisher_gram(torch.from_numpy(delta), statistics(x, g)) == pytest.approx(expected, rel=1e-5)


def test_no_error_costs_exactly_nothing(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, g, delta = sample
    for price in PRICES.values():
        assert price(torch.zeros(delta.shape), statistics(x, g)) == 0.0


def test_fisher_gram_predicts_the_loss_of_one_linear() -> None:
    """A model that is one Linear with zero weight: its predictions are uniform, so rows and inputs are independent."""
    rng = np.random.default_rng(2)
    tokens, columns, vocabulary = 4000, 8, 16
    x = rng.standard_normal((tokens, columns)) @ rng.standard_normal((columns, columns))
    logits = torch.zeros(tokens, vocabulary)
    g = residual(logits, Signs(0, 0, 0).draw(tokens, vocabulary)).numpy()
    delta = np.zeros((vocabulary, columns), np.float32)
    delta[3] = 0.01 * rng.standard_normal(columns)
    changed = torch.log_softmax(torch.from_numpy(x @ delta.T), dim=1)
    divergence = float((-np.log(vocabulary) - changed).sum(dim=1).mean() / vocabulary)
    assert fisher_gram(torch.from_numpy(delta), statistics(x, g)) == pytest.approx(divergence, rel=0.05)


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
    seen = [visit.linears[name] for visit in walk(open_model(folder), ids, probes) if visit.layer == 0]
    x, g = torch.cat([s.input for s in seen]), torch.cat([s.gradients for s in seen], dim=1)
    dots = (g * (x @ delta.T)).sum(dim=2).view(probes, windows, -1)
    predicted = 0.5 * float(dots.sum(dim=2).square().mean(dim=0).sum()) / ids.size
    assert predicted == pytest.approx(divergence, rel=0.3)  # 288 squares of about normal numbers: +- 8 %
