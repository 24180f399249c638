"""Data-free solvers: `rtn` is the amax rule, `scale_sweep` the best of all scales, and siblings share one scale."""

from __future__ import annotations

import numpy as np
import pytest

from prismaquant.codec import Quantized, get_codec
from prismaquant.errors import ArgumentError, FormatError, NumericError, ShapeError
from prismaquant.solver import shared_global_scale, solve
from prismaquant.types import Array
from support import numpy_twin as twin
from support.formats import formats_for

FORMATS = formats_for(96)
RULE_OF = {"rtn": "amax", "scale_sweep": "sweep"}


@pytest.fixture(scope="module")
def weight() -> Array:
    rng = np.random.default_rng(17)
    outliers = rng.random((24, 96)) < 0.03
    return (rng.standard_normal((24, 96)) * np.where(outliers, 20, 1)).astype(np.float32)


def assert_same(one: Quantized, other: Quantized) -> None:
    assert (one.format, one.shape, one.global_scale) == (other.format, other.shape, other.global_scale)
    np.testing.assert_array_equal(one.codes, other.codes)
    assert (one.scales is None) == (other.scales is None)
    if other.scales is not None:
        np.testing.assert_array_equal(one.scales, other.scales)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("preset", RULE_OF)
def test_a_solution_is_an_encoding_with_its_error(weight: Array, format: str, preset: str) -> None:
    solution = solve(weight, format, preset=preset)
    codec = get_codec(format)
    assert_same(solution.quantized, codec.encode(weight, scale_rule=RULE_OF[preset]))
    assert solution.report.preset == preset
    assert [stage.name for stage in solution.report.stages] == [preset]
    assert solution.report.objective == solution.report.squared_error
    assert solution.report.squared_error == codec.squared_error(weight, solution.quantized) > 0
    assert repr(solution).startswith(f"Solution(Quantized({format}, 24 x 96, ")


def test_the_default_preset_sweeps(weight: Array) -> None:
    assert_same(solve(weight, "nvfp4").quantized, solve(weight, "nvfp4", preset="scale_sweep").quantized)


@pytest.mark.parametrize("format", FORMATS)
def test_a_sweep_is_never_worse_under_the_same_global_scale(weight: Array, format: str) -> None:
    scale = shared_global_scale([weight], format)
    errors = {
        preset: solve(weight, format, preset=preset, global_scale=scale).report.squared_error for preset in RULE_OF
    }
    if format in ("nvfp4", "mxfp4"):
        assert errors["scale_sweep"] < 0.99 * errors["rtn"]
    elif format in ("mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e5m2", "mxint8"):
        assert errors["scale_sweep"] <= errors["rtn"]
    else:  # nothing to choose, or (MXFP8) too seldom to show here
        assert errors["scale_sweep"] == errors["rtn"]


def test_no_other_scale_of_any_nvfp4_block_is_better(weight: Array) -> None:
    """Tries all 126 scale codes for every block, through the decoder."""
    solved = solve(weight, "nvfp4").quantized
    assert solved.global_scale is not None
    codec = get_codec("nvfp4")
    blocks = weight.reshape(-1, 16)
    best = np.full(len(blocks), np.inf)
    for code in range(1, 127):
        factor = np.float32(twin.E4M3[code]) / np.float32(solved.global_scale)
        codes = twin.nearest(blocks / factor, twin.E2M1).astype(np.uint8)
        packed = codes[:, 0::2] | codes[:, 1::2] << 4
        tried = Quantized("nvfp4", blocks.shape, packed, np.full((len(blocks), 1), code, np.uint8), solved.global_scale)
        difference = codec.decode(tried).astype(np.float64) - blocks.astype(np.float64)
        best = np.minimum(best, np.square(difference).sum(axis=1))
    difference = (codec.decode(solved).astype(np.float64) - weight.astype(np.float64)).reshape(-1, 16)
    np.testing.assert_allclose(np.square(difference).sum(axis=1), best, rtol=1e-6)


@pytest.mark.parametrize(("preset", "largest"), [("rtn", 448.0), ("scale_sweep", 256.0)])
def test_siblings_share_the_global_scale_of_the_largest_magnitude(weight: Array, preset: str, largest: float) -> None:
    siblings = [weight, -3 * weight, weight / 5]
    amax = np.float32(3) * np.abs(weight).max()
    scale = shared_global_scale(siblings, "nvfp4", preset=preset)
    assert scale == float(np.float32(6 * largest) / amax)
    assert scale == shared_global_scale(siblings[::-1], "nvfp4", preset=preset)
    assert scale == solve(siblings[1], "nvfp4", preset=preset).quantized.global_scale
    for sibling in siblings:
        assert solve(sibling, "nvfp4", preset=preset, global_scale=scale).quantized.global_scale == scale


def test_a_shared_scale_is_used_for_the_block_scales(weight: Array) -> None:
    scale = shared_global_scale([weight, 8 * weight], "nvfp4", preset="rtn")
    small, large = (solve(w, "nvfp4", preset="rtn", global_scale=scale).quantized for w in (weight, 8 * weight))
    np.testing.assert_array_equal(small.codes, large.codes)  # a factor of 8 is one of the block scales alone
    assert small.scales is not None
    assert large.scales is not None
    np.testing.assert_array_equal(small.scales.astype(int) + 24, large.scales)  # three octaves of eight codes


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "nvfp4"])
def test_other_formats_share_nothing(weight: Array, format: str) -> None:
    assert shared_global_scale([weight, weight], format) is None
    assert solve(weight, format, global_scale=None).quantized.global_scale is None
    with pytest.raises(ArgumentError, match=f"global_scale: 2.0 was given, but {format} has none"):
        solve(weight, format, global_scale=2.0)


@pytest.mark.parametrize("weights", [[], [np.zeros((2, 16), np.float32)], [np.full((1, 16), 1e-40, np.float32)]])
def test_nothing_to_scale_gives_one(weights: list[Array]) -> None:
    assert shared_global_scale(weights, "nvfp4") == 1.0


def test_errors_name_the_sibling() -> None:
    good = np.ones((2, 16), np.float32)
    bad = good.copy()
    bad[1, 3], bad[1, 5] = np.inf, np.nan
    with pytest.raises(
        NumericError, match=r"^weights\[1\]: 1 NaN and 1 infinite values, the first at row 1, column 3$"
    ):
        shared_global_scale([good, bad], "nvfp4")
    with pytest.raises(ShapeError, match=r"^weights\[2\]: expected 2 axes \(rows, columns\), got shape \(16,\)$"):
        shared_global_scale([good, good, good[0]], "nvfp4")
    with pytest.raises(TypeError, match=r"^weights\[0\]: dtype float64 is not supported; accepted are float32"):
        shared_global_scale([good.astype(np.float64)], "nvfp4")


def test_unknown_names_list_the_known_ones_and_the_nearest(weight: Array) -> None:
    with pytest.raises(
        FormatError, match=r"unknown preset 'sweep'; known: best, fast, rtn, scale_sweep; did you mean 'scale_sweep'\?"
    ):
        solve(weight, "nvfp4", preset="sweep")
    with pytest.raises(FormatError, match=r"unknown format 'nvfp'; known: bf16, .*nvfp4; did you mean 'nvfp4'\?"):
        solve(weight, "nvfp")
    with pytest.raises(FormatError, match=r"unknown preset 'gptq'; known: best, fast, rtn, scale_sweep; a stage alone"):
        shared_global_scale([weight], "nvfp4", preset="gptq")
