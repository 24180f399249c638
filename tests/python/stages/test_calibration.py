"""The sums are per token, the probe prices what is rendered, and what it returns is complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prismaquant import formats
from prismaquant.calibration import PRICES, probe, run
from prismaquant.calibration import collect as collect_module
from prismaquant.calibration.collect import collect
from prismaquant.errors import ArgumentError, FormatError, ModelError
from prismaquant.files import sensitivity as sensitivity_file
from prismaquant.files.fingerprint import fingerprint
from prismaquant.model import Model, open_model
from prismaquant.rendering.cache import RenderCache
from prismaquant.solver import solve
from prismaquant.streaming import Observation, Tokens, Visit
from support import autograd_oracle
from support.tiny_models import build

PROBES, BATCHES, TOKENS, COLUMNS, ROWS = 3, 2, 5, 4, 6
MENU = ("NVFP4A16", "NVFP4", "FP8_DYNAMIC", "BF16")


def random_visits() -> list[Visit]:
    """Two batches of one layer: q and k share their input, o has its own."""
    generator = torch.Generator().manual_seed(0)
    visits = []
    for batch in range(BATCHES):
        shared, own = torch.randn(2, TOKENS, COLUMNS, generator=generator)
        gradients = torch.randn(3, PROBES, TOKENS, ROWS, generator=generator)
        inputs = {"q": shared, "k": shared, "o": own}
        visits.append(Visit(0, batch, {n: Observation(inputs[n], g) for n, g in zip("qko", gradients, strict=True)}))
    return visits


def test_sums_equal_the_naive_loops() -> None:
    visits = random_visits()
    sums = collect(visits)
    for name in "qko":
        trace, rows, gram, amax = 0.0, np.zeros(ROWS), np.zeros((COLUMNS, COLUMNS)), 0.0
        for visit in visits:
            x = visit.linears[name].input.double().numpy()
            g = visit.linears[name].gradients.double().numpy()
            amax = max(amax, abs(x).max())
            for token in range(TOKENS):
                gram += np.outer(x[token], x[token])
                for k in range(PROBES):
                    trace += float((np.outer(g[k, token], x[token]) ** 2).sum()) / PROBES
                    rows += g[k, token] ** 2 / PROBES
        assert sums[name].tokens == BATCHES * TOKENS
        assert sums[name].fisher_trace == pytest.approx(trace, rel=1e-5)
        assert sums[name].input_amax == pytest.approx(amax)
        np.testing.assert_allclose(sums[name].fisher_rows, rows, rtol=1e-5)
        np.testing.assert_allclose(sums[name].gram, gram, rtol=1e-5, atol=1e-5)
    assert sums["q"].gram is sums["k"].gram
    assert sums["q"].gram is not sums["o"].gram
    assert sums["q"].grams is None


@pytest.mark.parametrize(("whole", "block"), [(4096, ROWS), (ROWS, ROWS), (ROWS - 1, 4)])
def test_grams_of_the_gradients_are_whole_or_in_blocks(whole: int, block: int, monkeypatch) -> None:
    monkeypatch.setattr(collect_module, "_WHOLE_GRAM_ROWS", whole)
    monkeypatch.setattr(collect_module, "_BLOCK_ROWS", 4)
    visits = random_visits()
    sums = collect(visits, output_grams=True)
    for name in "qko":
        gradients = torch.cat([visit.linears[name].gradients.flatten(0, 1) for visit in visits])
        expected = gradients.T @ gradients
        found = sums[name].grams
        assert found is not None
        assert (found.tokens, found.output_tokens) == (BATCHES * TOKENS, BATCHES * TOKENS * PROBES)
        assert found.gram is sums[name].gram
        assert found.output_gram.shape == (ROWS, block)
        for first in range(0, ROWS, block):
            size = min(block, ROWS - first)
            rows = slice(first, first + size)
            torch.testing.assert_close(found.output_gram[rows, :size], expected[rows, rows])
        np.testing.assert_allclose(expected.diagonal() / PROBES, sums[name].fisher_rows, rtol=1e-5)


def test_fisher_is_not_the_square_of_a_sum() -> None:
    """Two tokens with opposite gradients: their sum vanishes, their Fisher trace does not."""
    x, g = torch.ones(2, 1), torch.tensor([[[1.0], [-1.0]]])
    assert collect([Visit(0, 0, {"a": Observation(x, g)})])["a"].fisher_trace == 2.0


def test_an_input_shared_in_some_batches_only_is_refused() -> None:
    visits = random_visits()
    visits[1].linears["k"] = Observation(visits[1].linears["k"].input.clone(), visits[1].linears["k"].gradients)
    with pytest.raises(ModelError, match="k: gets the input of 'q' in one batch, of 'k' in another"):
        collect(visits)


def make_tokens(windows: int = 6, seq_len: int = 24) -> Tokens:
    ids = np.random.default_rng(3).integers(0, 256, size=(windows, seq_len))
    return Tokens(ids, fingerprint([ids.tobytes()]), 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    # 72 columns of down_proj are no multiple of 16
    return open_model(build("llama", tmp_path_factory.mktemp("llama"), intermediate_size=72))


@pytest.fixture(scope="module")
def result(model: Model) -> sensitivity_file.Sensitivity:
    return probe(model, make_tokens(), schemes=MENU, preset="rtn", probes=2, seed=5)


def test_result_is_in_model_order_and_says_what_it_was_made_from(model, result) -> None:
    assert [unit.name for unit in result.units] == [unit.name for unit in model.units]
    assert [linear.name for unit in result.units for linear in unit.linears] == [o.name for o in model.linears()]
    assert (result.model, result.data) == (model.fingerprint, make_tokens().fingerprint)
    assert (result.tokens, result.seq_len, result.probes, result.seed) == (6 * 24, 24, 2, 5)
    assert (result.preset, result.prices) == ("rtn", tuple(PRICES))
    for linear in model.linears():
        assert result.fisher_rows[linear.name].shape == (linear.rows,)
        assert result.fisher_rows[linear.name].dtype == np.float32


def test_statistics_equal_those_of_the_whole_model(model, result) -> None:
    names = [linear.name for linear in model.linears()]
    seen = autograd_oracle.observe(model.path, make_tokens().ids, 2, names, seed=5)
    for linear in (linear for unit in result.units for linear in unit.linears):
        x, g = (part.double() for part in seen[linear.name])
        trace = float((g.square().sum(dim=2) * x.square().sum(dim=1)).sum()) / 2
        assert linear.fisher_trace == pytest.approx(trace, rel=1e-3)
        assert linear.input_amax == pytest.approx(float(x.abs().max()), rel=1e-5)
        rows = g.square().sum(dim=(0, 1)) / 2
        np.testing.assert_allclose(result.fisher_rows[linear.name], rows, rtol=1e-3, atol=1e-3 * float(rows.max()))


def test_candidates_are_what_the_shapes_allow(model, result) -> None:
    for unit in result.units:
        schemes = tuple(candidate.scheme for candidate in unit.candidates)
        assert schemes == (("FP8_DYNAMIC", "BF16") if unit.name.endswith("down_proj") else MENU)


def test_bytes_are_those_of_the_stored_tensors(model, result) -> None:
    for unit, measured in zip(model.units, result.units, strict=True):
        for candidate in measured.candidates:
            scheme = formats.get_scheme(candidate.scheme)
            assert candidate.bytes == sum(formats.stored_bytes(scheme, o.rows, o.columns) for o in unit.linears)
        assert measured.candidates[-1].bytes == 2 * unit.parameters


def test_bf16_of_bf16_costs_exactly_nothing(result) -> None:
    for unit in result.units:
        assert (unit.candidates[-1].scheme, unit.candidates[-1].squared_error) == ("BF16", 0.0)
        assert unit.candidates[-1].prices == {"fisher-trace": 0.0, "fisher-gram": 0.0}


def test_prices_are_those_of_the_rendered_bytes(model, result) -> None:
    """Once by hand: o_proj in FP8, a unit of one Linear, so that nothing is shared."""
    unit = next(unit for unit in model.units if unit.name == "model.layers.1.self_attn.o_proj")
    measured = next(part for part in result.units if part.name == unit.name)
    (linear,) = unit.linears
    weight = model.read_weight(linear)
    quantized = solve(weight, "fp8_e4m3_channel", preset="rtn").quantized
    delta = run.get_codec("fp8_e4m3_channel").decode(quantized).astype(np.float64) - weight
    (x, g) = autograd_oracle.observe(model.path, make_tokens().ids, 2, [linear.name], seed=5)[linear.name]
    f = g.double().square().mean(dim=(0, 1)).numpy()
    h = (x.double().T @ x.double()).numpy() / len(x)
    candidate = measured.candidates[2]
    assert candidate.squared_error == pytest.approx((delta**2).sum(), rel=1e-6)
    assert candidate.prices["fisher-gram"] == pytest.approx(
        0.5 * f @ np.einsum("oi,ij,oj->o", delta, h, delta), rel=1e-3
    )
    trace = measured.linears[0].fisher_trace / result.tokens
    assert candidate.prices["fisher-trace"] == pytest.approx(0.5 * trace * (delta**2).mean(), rel=1e-5)


def test_fewer_bits_cost_more(result) -> None:
    for unit in result.units:
        prices = {candidate.scheme: candidate.prices["fisher-gram"] for candidate in unit.candidates}
        order = [prices[name] for name in MENU if name in prices]
        assert order == sorted(order, reverse=True)
        assert order[0] > 0


def test_schemes_of_one_weight_format_share_a_rendering(model, result, monkeypatch) -> None:
    made = []

    def counted(model, unit, format, **options):
        made.append((unit.name, format))
        return plain(model, unit, format, **options)

    plain = run.render_cached
    monkeypatch.setattr(run, "render_cached", counted)
    again = probe(model, make_tokens(), schemes=MENU, preset="rtn", probes=2, seed=5)
    assert again == result
    assert len(made) == len(set(made)) == 6 * 3 + 2 * 2
    for unit in (unit for unit in again.units if not unit.name.endswith("down_proj")):
        weight_only, native = unit.candidates[:2]
        assert weight_only.prices == native.prices
        assert native.bytes == weight_only.bytes + 4 * len(unit.linears)


def test_cache_keeps_what_was_priced(model, result, tmp_path) -> None:
    cache = RenderCache(tmp_path, model.fingerprint, "rtn")
    again = probe(model, make_tokens(), schemes=MENU, preset="rtn", probes=2, seed=5, cache=cache)
    assert again == result
    for unit in model.units:
        assert cache.get(unit, "fp8_e4m3_channel") is not None


def test_solvers_get_no_window_that_sets_prices(model, monkeypatch) -> None:
    """The statistics are those of all windows, the Grams of three quarters, the prices of the rest."""
    collected: dict[bool, list[int]] = {False: [], True: []}

    def counted(visits, *, output_grams):
        visits = list(visits)
        collected[output_grams] += [visit.batch for visit in visits if visit.layer == 0]
        return plain(visits, output_grams=output_grams)

    plain = run.collect
    monkeypatch.setattr(run, "collect", counted)
    tokens = make_tokens(9)
    solved = probe(model, tokens, schemes=["NVFP4A16"], preset="best")
    assert collected == {True: [0, 1, 2, 3], False: [4]}
    free = probe(model, tokens, schemes=["NVFP4A16"], preset="rtn")
    for unit, other in zip(solved.units, free.units, strict=True):
        for linear, same in zip(unit.linears, other.linears, strict=True):
            assert linear.fisher_trace == pytest.approx(same.fisher_trace, rel=1e-4)
            assert linear.input_amax == pytest.approx(same.input_amax, rel=1e-5)
        for solved_for, rounded in zip(unit.candidates, other.candidates, strict=True):
            assert solved_for.prices["fisher-gram"] < rounded.prices["fisher-gram"]
    for name, rows in free.fisher_rows.items():
        np.testing.assert_allclose(solved.fisher_rows[name], rows, rtol=1e-3)


@pytest.mark.parametrize(
    ("windows", "size", "first"), [(1, 1, 1), (2, 1, 1), (4, 1, 3), (9, 2, 4), (32, 8, 3), (128, 8, 12)]
)
def test_a_quarter_of_the_windows_sets_prices(windows: int, size: int, first: int) -> None:
    assert run._batches(windows, held_out=True) == (size, first)
    assert first * size < windows or windows == 1
    assert run._batches(windows, held_out=False)[1] >= windows / 8


def test_result_survives_its_file(result, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    sensitivity_file.write(path, result)
    back = sensitivity_file.read(path)
    assert back == result
    assert all(np.array_equal(back.fisher_rows[name], rows) for name, rows in result.fisher_rows.items())


def test_progress_prices_every_unit(model) -> None:
    events = []
    probe(model, make_tokens(2), schemes=["BF16"], preset="rtn", progress=events.append)
    assert [e.done for e in events if e.stage == "price"] == list(range(1, 9))
    assert {e.total for e in events if e.stage == "price"} == {8}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"schemes": ["NVFP5"]}, FormatError, "unknown scheme 'NVFP5'.*did you mean 'NVFP4'"),
        ({"schemes": []}, ArgumentError, "schemes is empty"),
        ({"preset": "magic"}, FormatError, "unknown preset 'magic'"),
        ({"probes": 0}, ArgumentError, "probes 0"),
    ],
)
def test_arguments_are_checked_before_work(model, options, error, message) -> None:
    def fail(event) -> None:
        pytest.fail("work was started")

    with pytest.raises(error, match=message):
        probe(model, make_tokens(), **{"schemes": MENU, "preset": "rtn", **options}, progress=fail)


def test_threads_hold_for_the_probe_only(model, result) -> None:
    before, seen = torch.get_num_threads(), set()
    again = probe(
        model,
        make_tokens(),
        schemes=MENU,
        preset="rtn",
        probes=2,
        seed=5,
        threads=before + 1,
        progress=lambda event: seen.add(torch.get_num_threads()),
    )
    assert seen == {before + 1}
    assert torch.get_num_threads() == before
    for unit, measured in zip(result.units, again.units, strict=True):
        for one, other in zip(unit.candidates, measured.candidates, strict=True):
            assert other.prices == pytest.approx(one.prices, rel=1e-4)
