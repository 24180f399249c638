"""The price `measured` is the KL divergence of the whole model with one unit replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prismaquant as pq
from prismaquant.calibration import Draw
from prismaquant.calibration.inputs import quantize_input
from prismaquant.calibration.memory import working_bytes
from prismaquant.errors import ArgumentError
from prismaquant.files.sensitivity import Sensitivity, price_sums_name
from prismaquant.formats import get_scheme
from prismaquant.pipeline.work import render_cache, windows_file
from prismaquant.progress import Event
from prismaquant.rendering.input_scale import static_scale
from support import autograd_oracle, tiny_models

SCHEMES = ("NVFP4", "NVFP4A16", "FP8_DYNAMIC", "FP8_STATIC", "BF16")
PROBE: dict[str, Any] = {"samples": 4, "price_samples": 9, "seq_len": 16, "price_probes": 2, "schemes": SCHEMES}


class Stop(Exception):
    """Raised by a progress sink."""


def stop_after_a_layer(event: Event) -> None:
    if event.stage == "measure":
        raise Stop


def probe(folder: Path, name: str = "one", **options: Any) -> Sensitivity:
    work = folder.with_name(name)
    settings = {**PROBE, "work_dir": work, "out": work.with_suffix(".safetensors"), "prices": ["measured"], **options}
    return pq.probe(folder, folder.with_name("ids.npy"), **settings)


@pytest.fixture(scope="module", params=["llama", "qwen3_moe"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny_models.build(request.param, tmp_path_factory.mktemp(request.param) / "model")
    np.save(made.with_name("ids.npy"), np.random.default_rng(0).integers(2, 256, (16, 16)))
    return made


@pytest.fixture(scope="module")
def sensitivity(folder: Path) -> Sensitivity:
    return probe(folder)


def kl(source: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    """Sum over the tokens of each window, in float64."""
    p, q = source.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).sum(-1).numpy()


@torch.no_grad()
def test_it_is_what_the_whole_model_says(folder: Path, sensitivity: Sensitivity) -> None:
    model, ids = pq.open(folder), Draw.read(windows_file(folder.with_name("one"))).prices
    cache = render_cache(model, sensitivity.preset, sensitivity.calibration, folder.with_name("one"))
    whole = autograd_oracle.load(folder)
    source = autograd_oracle.forward(whole, ids)
    parameters = dict(whole.named_parameters())
    for unit, found in zip(model.units, sensitivity.units, strict=True):
        for index, candidate in enumerate(found.candidates):
            scheme = get_scheme(candidate.scheme)
            sums = sensitivity.price_sums[price_sums_name(unit.name, "measured")][index]
            if scheme.name == "BF16":
                assert not sums.any()
                continue
            if unit.experts and scheme.activations:
                continue  # the whole model has no Linears there whose inputs could be rounded
            rendering = cache.get(unit, scheme.weight_format)
            kept, hooks = {}, []
            codec = pq.get_codec(scheme.weight_format)
            for linear in unit.linears:
                name, weight = _place(parameters, unit, linear.name)
                kept.setdefault(name, parameters[name].clone())
                weight.copy_(torch.from_numpy(codec.decode(rendering.quantized[linear.name])))
                if scheme.activations:
                    scale = static_scale(scheme.activations, found.input_amax, found.input_global_scale)

                    def served(
                        module: object,
                        args: tuple[torch.Tensor],
                        how: str = scheme.activations,
                        scale: float | None = scale,
                    ) -> torch.Tensor:
                        flat = quantize_input(args[0].flatten(0, -2), how, scale)
                        return flat.view(args[0].shape)

                    hooks.append(whole.get_submodule(linear.name).register_forward_pre_hook(served))
            expected = kl(source, autograd_oracle.forward(whole, ids))
            for name, weight in kept.items():
                parameters[name].copy_(weight)
            for hook in hooks:
                hook.remove()
            np.testing.assert_allclose(sums, expected, rtol=2e-3)
            assert candidate.prices["measured"] == pytest.approx(expected.sum() / ids.size, rel=1e-3)


def _place(parameters: dict[str, torch.Tensor], unit: pq.Unit, linear: str) -> tuple[str, torch.Tensor]:
    """The parameter of the whole model that holds ``linear``, and its part of it."""
    if not unit.experts:
        return f"{linear}.weight", parameters[f"{linear}.weight"]
    _, expert, kind = linear.rsplit(".", 2)
    if kind == "down_proj":
        return f"{unit.name}.down_proj", parameters[f"{unit.name}.down_proj"][int(expert)]
    gate, up = parameters[f"{unit.name}.gate_up_proj"][int(expert)].chunk(2)
    return f"{unit.name}.gate_up_proj", gate if kind == "gate_proj" else up


def test_it_is_the_same_with_states_on_disk(folder: Path, sensitivity: Sensitivity) -> None:
    limit = working_bytes(pq.open(folder)) + 1
    assert probe(folder, "disk", max_memory=limit) == sensitivity


@pytest.mark.parametrize("folder", ["llama"], indirect=True)  # other experts for some tokens: no longer of second order
def test_it_agrees_with_the_estimate(folder: Path, sensitivity: Sensitivity) -> None:
    for scheme in ("NVFP4", "NVFP4A16", "FP8_DYNAMIC"):
        found = [each.prices for unit in sensitivity.units for each in unit.candidates if each.scheme == scheme]
        measured, estimated = (sum(prices[name] for prices in found) for name in ("measured", "directional"))
        assert measured == pytest.approx(estimated, rel=0.4)
    for unit in sensitivity.units:
        for candidate in unit.candidates:
            if candidate.scheme == "FP8_DYNAMIC":  # small errors, of which the second order is nearly all
                assert candidate.prices["measured"] == pytest.approx(candidate.prices["directional"], rel=0.6)


def test_a_plan_can_go_by_it(folder: Path, sensitivity: Sensitivity) -> None:
    plan = pq.plan(folder, sensitivity, bpw=7.0, price="measured", schemes=SCHEMES)
    assert plan.price == "measured"
    assert plan.standard_error is not None


def test_an_interrupted_run_goes_on(folder: Path, sensitivity: Sensitivity) -> None:
    with pytest.raises(Stop):
        probe(folder, "two", progress=stop_after_a_layer)
    stages = []
    again = probe(folder, "two", progress=lambda event: stages.append((event.stage, event.done)))
    assert "backward" not in [stage for stage, _ in stages]
    assert [done for stage, done in stages if stage == "measure"] == [2]
    assert again == sensitivity
    for name, sums in sensitivity.price_sums.items():
        assert np.array_equal(again.price_sums[name], sums)


def test_without_a_work_folder_it_is_refused(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="needs the renderings"):
        pq.probe(folder, folder.with_name("ids.npy"), **{**PROBE, "prices": ["measured"]})
