"""A unit becomes bytes in one way only, and the cache gives back exactly these bytes or nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prismaquant.codec import Quantized, get_codec
from prismaquant.errors import ArgumentError, RefusedError
from prismaquant.model import Model, open_model
from prismaquant.rendering import cache as cache_module
from prismaquant.rendering import render as render_module
from prismaquant.rendering.cache import RenderCache, render_cached
from prismaquant.rendering.render import Grams, Rendering, render
from prismaquant.solver import shared_global_scale, solve
from support.tiny_models import build

FORMATS = ("nvfp4", "mxfp4", "mxfp8_e4m3", "fp8_e4m3_channel", "bf16")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(build("llama", tmp_path_factory.mktemp("model") / "llama"))


@pytest.fixture
def cache(tmp_path: Path, model: Model) -> RenderCache:
    return RenderCache(tmp_path / "cache", model.fingerprint, "rtn")


def assert_same(one: Rendering | None, other: Rendering) -> None:
    assert one is not None
    assert (one.unit, one.format, one.squared_error) == (other.unit, other.format, other.squared_error)
    assert list(one.quantized) == list(other.quantized)
    for name, expected in other.quantized.items():
        assert_same_bytes(one.quantized[name], expected)


def assert_same_bytes(one: Quantized, other: Quantized) -> None:
    assert (one.format, one.shape, one.global_scale) == (other.format, other.shape, other.global_scale)
    for got, expected in ((one.codes, other.codes), (one.scales, other.scales)):
        if expected is None:
            assert got is None
        else:
            assert got is not None
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("preset", ["rtn", "scale_sweep"])
def test_fused_siblings_share_the_global_scale_of_the_largest(model: Model, preset: str) -> None:
    unit = model.units[0]
    weights = [model.read_weight(linear) for linear in unit.linears]
    largest = max(weights, key=lambda weight: float(np.abs(weight).max()))
    rendering = render(model, unit, "nvfp4", preset=preset)
    assert len(weights) == 3
    assert {q.global_scale for q in rendering.quantized.values()} == {
        shared_global_scale([largest], "nvfp4", preset=preset)
    }


def test_siblings_are_one_matrix_where_a_tensor_has_one_scale(model: Model) -> None:
    unit = model.units[0]
    rng = np.random.default_rng(3)
    x = rng.standard_normal((500, unit.linears[0].columns)).astype(np.float32)
    gradients = [rng.standard_normal((500, linear.rows)).astype(np.float32) for linear in unit.linears]
    grams = {
        linear.name: Grams(x.T @ x, 500, np.concatenate([(g.T @ g)[:16, :16], (g.T @ g)[16:, 16:][:, :16]]), 500)
        if linear.rows == 32
        else Grams(x.T @ x, 500, g.T @ g, 500)
        for linear, g in zip(unit.linears, gradients, strict=True)
    }
    rendering = render(model, unit, "fp8_e4m3_tensor", preset="best", grams=grams)
    weights = [model.read_weight(linear) for linear in unit.linears]
    rows = np.concatenate([np.square(g).sum(0)[:, None] for g in gradients])
    together = solve(
        np.concatenate(weights),
        "fp8_e4m3_tensor",
        gram=x.T @ x,
        tokens=500,
        output_gram=rows,
        output_tokens=500,
    ).quantized
    codes = np.concatenate([rendering.quantized[linear.name].codes for linear in unit.linears])
    assert (codes != together.codes).mean() < 1e-3  # sums of squares in another order
    for linear, weight in zip(unit.linears, weights, strict=True):
        part = rendering.quantized[linear.name]
        np.testing.assert_array_equal(part.scales, together.scales)
        error = float(((get_codec("fp8_e4m3_tensor").decode(part).astype(np.float64) - weight) ** 2).sum())
        assert rendering.squared_error[linear.name] == pytest.approx(error, rel=1e-12)


def test_of_an_expert_gate_and_up_share_that_scale(tmp_path: Path) -> None:
    mixture = open_model(build("qwen3_moe", tmp_path / "model"))
    bank = next(unit for unit in mixture.units if unit.experts)
    rendering = render(mixture, bank, "fp8_e4m3_tensor", preset="rtn")
    scales = [rendering.quantized[linear.name].scales for linear in bank.linears]
    values = [float(scale.reshape(())) for scale in scales if scale is not None]
    assert values[::3] == values[1::3]
    assert len(set(values)) == 2 * bank.experts


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_are_the_solvers_and_errors_are_the_codecs(model: Model, format: str) -> None:
    unit = model.units[2]
    rendering = render(model, unit, format, preset="scale_sweep", threads=1)
    assert list(rendering.quantized) == [linear.name for linear in unit.linears]
    for linear in unit.linears:
        weight, quantized = model.read_weight(linear), rendering.quantized[linear.name]
        scale = quantized.global_scale
        assert_same_bytes(quantized, solve(weight, format, preset="scale_sweep", global_scale=scale).quantized)
        error = float(((get_codec(format).decode(quantized).astype(np.float64) - weight) ** 2).sum())
        assert rendering.squared_error[linear.name] == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize("threads", [2, 7, None])
def test_threads_do_not_change_the_bytes(model: Model, threads: int | None) -> None:
    unit = model.units[0]
    assert_same(
        render(model, unit, "nvfp4", preset="scale_sweep", threads=threads),
        render(model, unit, "nvfp4", preset="scale_sweep", threads=1),
    )


@pytest.mark.parametrize("format", FORMATS)
def test_cache_gives_back_what_it_was_given(model: Model, cache: RenderCache, format: str) -> None:
    unit = model.units[0]
    assert cache.get(unit, format) is None
    rendering = render(model, unit, format, preset="rtn")
    cache.put(rendering)
    assert_same(cache.get(unit, format), rendering)


def test_render_cached_renders_once(model: Model, cache: RenderCache, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = model.units[1]
    first = render_cached(model, unit, "nvfp4", preset="rtn", cache=cache)
    monkeypatch.setattr(render_module, "solve", None)
    assert_same(render_cached(model, unit, "nvfp4", preset="rtn", cache=cache), first)


def test_a_preset_that_needs_a_gram_is_refused(model: Model) -> None:
    """It would fall back to the sweep, and call the bytes after itself."""
    with pytest.raises(RefusedError, match="nvfp4: preset 'fast' solves for the inputs of the model"):
        render(model, model.units[0], "nvfp4", preset="fast")
    assert_same(
        render(model, model.units[0], "bf16", preset="fast"), render(model, model.units[0], "bf16", preset="rtn")
    )


def test_grams_are_what_the_preset_solves_for(model: Model) -> None:
    unit = model.units[0]
    rng = np.random.default_rng(3)
    grams = {}
    for linear in unit.linears:
        x = rng.standard_normal((500, linear.columns)).astype(np.float32)
        g = rng.standard_normal((500, linear.rows)).astype(np.float32)
        grams[linear.name] = Grams(x.T @ x, 500, g.T @ g, 500)
    rendering = render(model, unit, "nvfp4", preset="best", grams=grams)
    scale = shared_global_scale([model.read_weight(linear) for linear in unit.linears], "nvfp4", preset="best")
    for linear in unit.linears:
        known = grams[linear.name]
        alone = solve(
            model.read_weight(linear),
            "nvfp4",
            gram=known.gram,
            tokens=500,
            output_gram=known.output_gram,
            output_tokens=500,
            global_scale=scale,
        )
        np.testing.assert_array_equal(rendering.quantized[linear.name].codes, alone.quantized.codes)
        np.testing.assert_array_equal(rendering.quantized[linear.name].scales, alone.quantized.scales)
    swept = render(model, unit, "nvfp4", preset="scale_sweep")
    assert_same(render(model, unit, "nvfp4", preset="scale_sweep", grams=grams), swept)
    assert any((rendering.quantized[name].codes != swept.quantized[name].codes).any() for name in grams)


def test_renderings_of_other_calibration_data_do_not_count(model: Model, tmp_path: Path) -> None:
    unit = model.units[0]
    solved, other = (RenderCache(tmp_path, model.fingerprint, "fast", name) for name in ("sha256:1", "sha256:2"))
    assert solved.lacks(unit, "nvfp4")
    assert not solved.lacks(unit, "bf16")
    swept = render(model, unit, "nvfp4", preset="scale_sweep")
    solved.put(swept)
    assert not solved.lacks(unit, "nvfp4")
    assert_same(solved.get(unit, "nvfp4"), swept)
    assert other.lacks(unit, "nvfp4")
    assert other.get(unit, "nvfp4") is None
    other.path(unit.name, "nvfp4").parent.mkdir(parents=True, exist_ok=True)
    solved.path(unit.name, "nvfp4").rename(other.path(unit.name, "nvfp4"))
    assert other.get(unit, "nvfp4") is None
    free = RenderCache(tmp_path, model.fingerprint, "rtn", "sha256:1")
    assert free.folder == RenderCache(tmp_path, model.fingerprint, "rtn").folder
    assert not free.lacks(unit, "nvfp4")


def test_a_cache_of_another_model_or_preset_is_refused(model: Model, tmp_path: Path) -> None:
    for cache in (RenderCache(tmp_path, "sha256:0", "rtn"), RenderCache(tmp_path, model.fingerprint, "scale_sweep")):
        with pytest.raises(ArgumentError, match="renderings of"):
            render_cached(model, model.units[0], "nvfp4", preset="rtn", cache=cache)


def test_models_and_presets_share_a_folder_without_meeting(model: Model, cache: RenderCache, tmp_path: Path) -> None:
    unit = model.units[0]
    cache.put(render(model, unit, "nvfp4", preset="rtn"))
    assert RenderCache(tmp_path / "cache", model.fingerprint, "scale_sweep").get(unit, "nvfp4") is None
    assert RenderCache(tmp_path / "cache", "sha256:0", "rtn").get(unit, "nvfp4") is None
    assert cache.get(unit, "mxfp4") is None
    assert cache.get(model.units[1], "nvfp4") is None


def test_a_new_rendering_version_forgets_the_old(
    model: Model, cache: RenderCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(render(model, model.units[0], "nvfp4", preset="rtn"))
    monkeypatch.setattr(cache_module, "VERSION", cache_module.VERSION + 1)
    assert cache.get(model.units[0], "nvfp4") is None
    assert RenderCache(tmp_path / "cache", model.fingerprint, "rtn").get(model.units[0], "nvfp4") is None


def test_broken_files_count_as_absent_and_are_replaced(model: Model, cache: RenderCache) -> None:
    unit = model.units[0]
    rendering = render_cached(model, unit, "nvfp4", preset="rtn", cache=cache)
    path = cache.path(unit.name, "nvfp4")
    whole = path.read_bytes()
    broken = {
        "empty": b"",
        "text": b"not a safetensors file",
        "truncated": whole[:-1],
        "one bit of a tensor": whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:],
        "without metadata": whole.replace(b"__metadata__", b"__metadatb__"),
        "another schema": whole.replace(b"prismaquant.rendering/1", b"prismaquant.rendering/9"),
        "another model": whole.replace(model.fingerprint[-20:].encode(), b"0" * 20),
        "another unit": whole.replace(b"layers.0.self_attn.qkv_proj", b"layers.1.self_attn.qkv_proj"),
        "another preset": whole.replace(rb"preset\": \"rtn", rb"preset\": \"rtm"),
        "another error": whole.replace(b"squared_error", b"squared_errox"),
    }
    for what, data in broken.items():
        assert data != whole, what
        path.write_bytes(data)
        assert cache.get(unit, "nvfp4") is None, what
        assert_same(render_cached(model, unit, "nvfp4", preset="rtn", cache=cache), rendering)
        assert path.read_bytes() == whole, what


def test_a_file_of_other_shapes_counts_as_absent(model: Model, cache: RenderCache) -> None:
    unit = model.units[0]
    cache.put(render(model, unit, "nvfp4", preset="rtn"))
    linear = unit.linears[0]
    wider = replace(linear, weight=replace(linear.weight, shape=(linear.rows, 2 * linear.columns)))
    assert cache.get(replace(unit, linears=(wider, *unit.linears[1:])), "nvfp4") is None
    assert cache.get(replace(unit, linears=unit.linears[:2]), "nvfp4") is None
