"""Metrics against naive float64 computations."""

from __future__ import annotations

import pytest
import torch

from prismaquant.evaluation import metrics
from prismaquant.evaluation.metrics import kl_divergence, next_token_loss, same_top1


def naive_kl(source: torch.Tensor, checkpoint: torch.Tensor) -> torch.Tensor:
    p, q = source.double().log_softmax(-1), checkpoint.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def random_logits(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "tolerance"), [(1e-4, 1e-4), (1e-3, 1e-5), (1e-2, 1e-6), (0.1, 1e-6), (1.0, 1e-6), (10.0, 1e-6)]
)
def test_kl_keeps_its_digits_when_the_logits_hardly_differ(size: float, tolerance: float) -> None:
    source = random_logits(64, 4096)
    checkpoint = source + size * random_logits(64, 4096, seed=1, scale=1.0)
    expected = naive_kl(source, checkpoint)
    found = kl_divergence(source, checkpoint)
    assert found.dtype == torch.float32
    assert found.double().mean().item() == pytest.approx(expected.mean().item(), rel=tolerance)
    torch.testing.assert_close(found.double(), expected, rtol=100 * tolerance, atol=0)


def test_kl_of_equal_logits_is_exactly_zero() -> None:
    logits = random_logits(8, 1000, scale=20)
    assert torch.equal(kl_divergence(logits, logits.clone()), torch.zeros(8))


def test_kl_ignores_a_constant_in_the_logits() -> None:
    logits = random_logits(8, 1000)
    checkpoint = logits + 0.1 * random_logits(8, 1000, seed=1)
    found = kl_divergence(logits, checkpoint + 64)
    torch.testing.assert_close(found, kl_divergence(logits, checkpoint), rtol=1e-3, atol=0)


def test_kl_is_that_of_the_source_to_the_checkpoint_and_not_the_other_way_round() -> None:
    p, q = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
    expected = (p * (p / q).log()).sum()
    assert kl_divergence(p.log()[None], q.log()[None]).item() == pytest.approx(expected.item(), rel=1e-6)


def test_kl_of_a_confident_source_is_the_loss_of_its_token() -> None:
    source, checkpoint = torch.tensor([[200.0, 0.0, 0.0]]), torch.zeros(1, 3)
    assert kl_divergence(source, checkpoint).item() == pytest.approx(torch.tensor(3.0).log().item(), rel=1e-6)


def test_kl_does_not_overflow_when_the_models_have_nothing_in_common() -> None:
    source, checkpoint = random_logits(16, 100, scale=100), random_logits(16, 100, seed=1, scale=100)
    found = kl_divergence(source, checkpoint).double()
    torch.testing.assert_close(found, naive_kl(source, checkpoint), rtol=1e-5, atol=0)


def test_slices_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    source, checkpoint = random_logits(3, 7, 50), random_logits(3, 7, 50, seed=1)
    whole = kl_divergence(source, checkpoint), same_top1(source, checkpoint)
    monkeypatch.setattr(metrics, "_SLICE", 120)  # slices of two tokens
    assert whole[0].shape == whole[1].shape == (3, 7)
    assert torch.equal(kl_divergence(source, checkpoint), whole[0])
    assert torch.equal(same_top1(source, checkpoint), whole[1])


def test_top1_compares_the_first_choice() -> None:
    source = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]])
    checkpoint = torch.tensor([[[0.0, 9.0, 9.5], [0.0, 0.1, 0.0]]])
    assert same_top1(source, checkpoint).tolist() == [[True, False]]


def test_loss_is_that_of_the_next_token() -> None:
    logits, ids = random_logits(2, 5, 11), torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 10]])
    logp = logits.double().log_softmax(-1)
    expected = [[-logp[w, t, ids[w, t + 1]].item() for t in range(4)] for w in range(2)]
    torch.testing.assert_close(next_token_loss(logits, ids).double(), torch.tensor(expected, dtype=torch.float64))
