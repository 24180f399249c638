"""Statistics of any library and dtype, and errors that name the argument, what was got, and what would do."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from prismaquant.errors import ArgumentError, FormatError, NumericError, ShapeError
from prismaquant.solver import CoordinateDescent, Gptq, Shift, TwoSided, shared_global_scale, solve
from prismaquant.types import Array
from support.problems import Problem, make_problem

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(rows=32, columns=128, tokens=300)


def codes(problem: Problem, convert: Any = None, **changed: Any) -> Array:
    """Codes of `best` with every tensor converted."""
    cross = (problem.inputs[::-1].T @ problem.inputs) / 2 + problem.gram / 2
    arguments = {"gram": problem.gram, "output_gram": problem.output_gram, "cross_gram": cross, **changed}
    convert = convert or (lambda array: array)
    tensors = {name: convert(array) for name, array in arguments.items()}
    return solve(convert(problem.weight), "nvfp4", tokens=problem.tokens, **tensors).quantized.codes


def test_numpy_and_torch_give_the_same_bytes(problem: Problem) -> None:
    expected = codes(problem)
    np.testing.assert_array_equal(codes(problem, torch.from_numpy), expected)
    np.testing.assert_array_equal(codes(problem, np.asfortranarray), expected)
    np.testing.assert_array_equal(codes(problem, lambda a: torch.from_numpy(a.T.copy()).T), expected)


def test_float64_statistics_are_rounded_once(problem: Problem) -> None:
    exact = problem.inputs.astype(np.float64)
    gram = exact.T @ exact
    expected = codes(problem, gram=gram.astype(np.float32))
    np.testing.assert_array_equal(codes(problem, gram=gram), expected)
    for to in (torch.from_numpy, lambda a: torch.from_numpy(a.T.copy()).T):
        found = solve(problem.weight, "nvfp4", gram=to(gram), tokens=problem.tokens).quantized.codes
        wanted = solve(problem.weight, "nvfp4", gram=gram.astype(np.float32), tokens=problem.tokens).quantized.codes
        np.testing.assert_array_equal(found, wanted)


def test_half_precision_statistics_are_widened(problem: Problem) -> None:
    half = torch.from_numpy(problem.gram).bfloat16()
    expected = codes(problem, gram=half.float().numpy())
    wide = half.float().numpy()
    with_torch = solve(problem.weight, "nvfp4", gram=half, tokens=300).quantized.codes
    with_numpy = solve(problem.weight, "nvfp4", gram=wide.astype(ml_dtypes.bfloat16), tokens=300).quantized.codes
    with_float = solve(problem.weight, "nvfp4", gram=wide, tokens=300).quantized.codes
    np.testing.assert_array_equal(with_torch, with_float)
    np.testing.assert_array_equal(with_numpy, with_float)
    assert not np.array_equal(expected, codes(problem))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_in_half_precision_are_solved_as_what_they_are(problem: Problem, dtype: str) -> None:
    weight = torch.from_numpy(problem.weight).to(getattr(torch, dtype))
    for format in ("nvfp4", "mxfp8_e4m3"):
        half = solve(weight, format, **problem.two_sided)
        wide = solve(weight.float().numpy(), format, **problem.two_sided)
        np.testing.assert_array_equal(half.quantized.codes, wide.quantized.codes)
        assert half.report.objective == wide.report.objective


def test_memory_is_borrowed(problem: Problem) -> None:
    """A read-only Gram with a stride of zero has no room for a copy of itself to hide in."""
    gram = np.broadcast_to(np.float32(1), (128, 128))
    solve(problem.weight, "nvfp4", gram=gram, tokens=1)
    assert gram.strides == (0, 0)


def refused(error: type[Exception], problem: Problem, format: str = "nvfp4", **changed: Any) -> str:
    arguments = {**problem.two_sided, **changed}
    with pytest.raises(error) as caught:
        solve(problem.weight, format, **arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"gram": np.eye(64, dtype=np.float32)}, ShapeError, "gram is 64 x 64, expected 128 x 128"),
        ({"gram": np.ones(128, np.float32)}, ShapeError, "gram: expected 2 axes (rows, columns), got shape (128,)"),
        ({"gram": np.eye(128, dtype=np.int64)}, TypeError, "gram: expected a tensor of float32, float64"),
        ({"gram": [[1.0]]}, TypeError, "gram: expected a tensor of float32, float64, float16, bfloat16, got list"),
        ({"gram": np.full((128, 128), np.nan, np.float32)}, NumericError, "gram"),
        ({"gram": -np.eye(128, dtype=np.float32)}, NumericError, "gram is -1.0"),
        ({"tokens": None}, ArgumentError, "tokens: is missing, and gram was given; say how many vectors were summed"),
        ({"tokens": -1}, ArgumentError, "tokens: -1, expected 0 or more"),
        ({"tokens": 2.5}, TypeError, "float"),
        ({"tokens": 0}, NumericError, "tokens is 0, but gram is not"),
        ({"gram": None}, ArgumentError, "output_gram: was given, but gram was not, and no solver uses it alone"),
        ({"output_gram": np.eye(33, dtype=np.float32)}, ShapeError, "output_gram has 33 columns, expected 32"),
        ({"output_gram": np.full((32, 32), np.inf, np.float32)}, NumericError, "output_gram"),
        ({"cross_gram": np.eye(32, dtype=np.float32)}, ShapeError, "cross_gram is 32 x 32, expected 128 x 128"),
        ({"pooled_gram": np.eye(128, dtype=np.float32)}, ArgumentError, "pooled_tokens: is missing"),
        ({"damping": -0.1}, NumericError, "damping is -0.1"),
        ({"output_damping": float("nan")}, NumericError, "output_damping is nan"),
        ({"importance": np.ones(32, np.float32)}, ShapeError, "importance: shape (32,), expected (128,) or (32, 128)"),
        ({"importance": -np.ones(128, np.float32)}, NumericError, "importance"),
        ({"memory_limit": "100kB"}, ShapeError, "weight is 32 x 128: solver 'gptq' and those after it would allocate"),
        ({"memory_limit": 0}, ArgumentError, "memory_limit: 0, expected a positive number of bytes"),
        ({"memory_limit": "lots"}, ArgumentError, "'lots' is not a size"),
        ({"threads": 0}, ArgumentError, "threads: 0, expected at least 1"),
        ({"global_scale": -1.0}, NumericError, "global_scale is -1.0"),
        ({"preset": "beste"}, FormatError, "unknown preset 'beste'; known: best, fast, rtn, scale_sweep; did you mean"),
        ({"preset": "gptq"}, FormatError, "a stage alone is a list: preset=['gptq']"),
        ({"preset": []}, FormatError, "preset: the list of stages is empty"),
        ({"preset": Gptq()}, TypeError, "preset: Gptq(order='automatic', scales='automatic'), expected the name of"),
        ({"preset": [Gptq]}, TypeError, "preset: a stage is <class"),
        ({"preset": ["gptk"]}, FormatError, "unknown solver 'gptk'; known: coordinate_descent, gptq"),
        ({"preset": [("gptq", {"sort": 1})]}, FormatError, "unknown option of gptq 'sort'; known: order, scales"),
        (
            {"preset": [Gptq(order="random")]},
            FormatError,
            "gptq: option order is 'random', expected one of 'automatic'",
        ),
        ({"preset": [CoordinateDescent(sweeps=-1)]}, FormatError, "sweeps is -1, expected a whole number"),
        ({"preset": [CoordinateDescent(sweeps=2.0)]}, FormatError, "sweeps is 2.0, expected a whole number"),
        ({"preset": [CoordinateDescent(refit_scales=1)]}, FormatError, "refit_scales is 1, expected True or False"),
        ({"preset": [Shift(strength="all"), "gptq"]}, FormatError, "strength is 'all', expected a finite number"),
        ({"preset": ["shift", "gptq"]}, ShapeError, "cross_gram is missing, and shift needs it"),
        ({"preset": ["gptq", "shift"]}, FormatError, "it must come first"),
        ({"preset": [TwoSided()], "output_gram": None}, ShapeError, "output_gram is missing, and two_sided needs it"),
        ({"preset": [Gptq(order="activation", scales="in_loop")]}, FormatError, "activation order takes groups apart"),
    ],
)
def test_errors(problem: Problem, change: dict[str, Any], error: type[Exception], words: str) -> None:
    assert words in refused(error, problem, **change)


def test_a_stage_of_a_list_is_never_left_out(problem: Problem) -> None:
    with pytest.raises(ShapeError, match="gram is missing, and a stage needs it"):
        solve(problem.weight, "nvfp4", preset=["scale_sweep", "gptq"])


def test_weights_are_checked_first(problem: Problem) -> None:
    bad = problem.weight.copy()
    bad[3, 5] = np.nan
    with pytest.raises(NumericError, match=r"weight.*row 3, column 5"):
        solve(bad, "nvfp4", **problem.one_sided)
    with pytest.raises(ShapeError, match="columns"):
        solve(problem.weight[:, :40], "nvfp4", gram=np.eye(40, dtype=np.float32), tokens=40)
    with pytest.raises(ShapeError, match=r"weight: expected 2 axes \(rows, columns\), got shape \(128,\)"):
        solve(problem.weight[0], "nvfp4", **problem.one_sided)
    with pytest.raises(ShapeError, match=r"weight: expected 2 axes"):
        solve(problem.weight[0], "nvfp4", importance=np.ones(128, np.float32))
    with pytest.raises(ArgumentError, match=r"global_scale: 2\.0 was given, but mxfp4 has none"):
        solve(problem.weight, "mxfp4", **problem.one_sided, global_scale=2.0)


def test_tensors_that_cannot_be_borrowed(problem: Problem) -> None:
    gram = torch.from_numpy(problem.gram).requires_grad_()
    with pytest.raises(TypeError, match=r"^gram: the tensor cannot be borrowed"):
        solve(problem.weight, "nvfp4", gram=gram, tokens=300)


def test_more_columns_than_memory_are_refused_before_work() -> None:
    """Matrices of 50,000 columns: what needs H says how much memory it would take; the sweep runs."""
    weight = np.ones((1, 50_000), np.float32)
    gram = np.broadcast_to(np.float32(0), (50_000, 50_000))
    with pytest.raises(ShapeError, match=r"would allocate 2\d\.\d GB, 8\.0 GB are allowed; take rtn or scale_sweep"):
        solve(weight, "nvfp4", gram=gram, tokens=1, memory_limit="8GB")
    assert solve(weight, "nvfp4").report.squared_error == 0.0


def test_shared_scales_check_their_preset(problem: Problem) -> None:
    with pytest.raises(FormatError, match="unknown preset 'gptq'"):
        shared_global_scale([problem.weight], "nvfp4", preset="gptq")
    with pytest.raises(FormatError, match="sweeps is -2"):
        shared_global_scale([problem.weight], "nvfp4", preset=[CoordinateDescent(sweeps=-2)])
    with pytest.raises(FormatError, match="unknown format 'nvfp'"):
        shared_global_scale([problem.weight], "nvfp")
