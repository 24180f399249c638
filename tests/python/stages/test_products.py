"""Products in bfloat16: where they are made, how near they are, and that they are the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prismaquant.model import open_model
from prismaquant.streaming import Windows, products, walk
from prismaquant.streaming.products import has_bf16, multiply_by, product_for
from support.tiny_models import build

CPU = torch.device("cpu")


@pytest.fixture(params=["llama", "qwen3_moe"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return build(request.param, tmp_path / "model")


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the processor had the instructions, and every weight was large; without them torch emulates."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(products, "_LARGE", 0)


def gradients(folder: Path) -> dict[str, torch.Tensor]:
    ids = np.random.default_rng(1).integers(2, 256, size=(4, 24))
    return {
        name: torch.cat([seen.input.flatten(), seen.gradients.flatten()])
        for visit in walk(open_model(folder), [Windows(ids, 2)], batch_windows=8)
        for name, seen in visit.linears.items()
    }


def test_only_large_weights_of_bfloat16_on_a_processor_that_has_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = next(open_model(folder).linears())
    plain = torch.nn.functional.linear
    for found, expected in (
        ({"avx512_bf16": False}, False),
        ({"amx_bf16": True}, True),
        ({"bf16": True}, True),
        ({}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert has_bf16(CPU) == expected
        assert not has_bf16(torch.device("cuda"))
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in torch 2.4
    assert not has_bf16(CPU)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert product_for(linear, CPU) is plain  # 64 x 64
    monkeypatch.setattr(products, "_LARGE", linear.rows * linear.columns)
    assert product_for(linear, CPU) is not plain
    assert product_for(linear, torch.device("cuda")) is plain
    stored_in_float32 = next(open_model(build("llama", tmp_path / "f32", dtype="float32")).linears())
    assert product_for(stored_in_float32, CPU) is plain


def test_what_a_linear_computes(everywhere: None, folder: Path) -> None:
    random = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(128, 96).requires_grad_(False)
    linear.weight.data = linear.weight.data.bfloat16().float()
    x = torch.randn(5, 7, 128, generator=random).requires_grad_()
    expected = linear(x)
    multiply_by(product_for(next(open_model(folder).linears()), CPU), linear)
    found = linear(x)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    gradient = torch.randn(5, 7, 96, generator=random)
    (one,), (other,) = (torch.autograd.grad(y, x, gradient) for y in (found, expected))
    assert one.dtype == torch.float32
    torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)


def test_inputs_and_gradients_stay_near(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In a dense model; in a mixture of this size a token or two choose another expert."""
    folder = build("llama", tmp_path / "dense")
    exact = gradients(folder)
    request.getfixturevalue("everywhere")
    rounded = gradients(folder)
    assert rounded.keys() == exact.keys()
    assert not all(torch.equal(rounded[name], exact[name]) for name in exact)
    for name in exact:
        assert (rounded[name] - exact[name]).norm() <= 0.03 * exact[name].norm(), name


def test_the_bytes_do_not_depend_on_the_threads(everywhere: None, folder: Path) -> None:
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            runs.append(gradients(folder))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
