"""The sums are per token, the probe prices what is rendered, and what it returns is complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prismaquant import formats
from prismaquant.calibration import DEFAULT_PRICES, Draw, layer, probe, split
from prismaquant.calibration import collect as collect_module
from prismaquant.calibration.collect import collect
from prismaquant.calibration.inputs import choose_input_global_scales, quantize_input
from prismaquant.codec import get_codec
from prismaquant.errors import ArgumentError, FormatError, ModelError
from prismaquant.files import sensitivity as sensitivity_file
from prismaquant.model import Model, open_model
from prismaquant.rendering.cache import RenderCache
from prismaquant.rendering.input_scale import static_scale
from prismaquant.solver import solve
from prismaquant.streaming import Batch, Observation, Tokens, Visit
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
        weight = torch.zeros(ROWS, COLUMNS)
        seen = {n: Observation(inputs[n], g, weight) for n, g in zip("qko", gradients, strict=True)}
        visits.append(Visit(0, batch_of(batch), seen))
    return visits


def batch_of(number: int = 0, tokens: int = TOKENS) -> Batch:
    return Batch(0, number, number, PROBES, torch.zeros(1, tokens, dtype=torch.int64))


def test_sums_equal_the_naive_loops() -> None:
    visits = random_visits()
    sums = collect(visits, grams=True)
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
        np.testing.assert_allclose(sums[name].grams.gram, gram, rtol=1e-5, atol=1e-5)
    assert sums["q"].grams.gram is sums["k"].grams.gram
    assert sums["q"].grams.gram is not sums["o"].grams.gram
    assert collect(visits, grams=False)["q"].grams is None


@pytest.mark.parametrize(("whole", "block"), [(4096, ROWS), (ROWS, ROWS), (ROWS - 1, 4)])
def test_grams_of_the_gradients_are_whole_or_in_blocks(whole: int, block: int, monkeypatch) -> None:
    monkeypatch.setattr(collect_module, "WHOLE_ROWS", whole)
    monkeypatch.setattr(collect_module, "BLOCK_ROWS", 4)
    visits = random_visits()
    sums = collect(visits, grams=True)
    for name in "qko":
        gradients = torch.cat([visit.linears[name].gradients.flatten(0, 1) for visit in visits])
        expected = gradients.T @ gradients
        found = sums[name].grams
        assert found is not None
        assert (found.tokens, found.output_tokens) == (BATCHES * TOKENS, BATCHES * TOKENS * PROBES)
        assert found.output_gram.shape == (ROWS, block)
        for first in range(0, ROWS, block):
            size = min(block, ROWS - first)
            rows = slice(first, first + size)
            torch.testing.assert_close(found.output_gram[rows, :size], expected[rows, rows])
        np.testing.assert_allclose(expected.diagonal() / PROBES, sums[name].fisher_rows, rtol=1e-5)


def test_fisher_is_not_the_square_of_a_sum() -> None:
    """Two tokens with opposite gradients: their sum vanishes, their Fisher trace does not."""
    x, g = torch.ones(2, 1), torch.tensor([[[1.0], [-1.0]]])
    visit = Visit(0, batch_of(tokens=2), {"a": Observation(x, g, torch.zeros(1, 1))})
    assert collect([visit], grams=False)["a"].fisher_trace == 2.0


def test_an_input_shared_in_some_batches_only_is_refused() -> None:
    visits = random_visits()
    seen = visits[1].linears["k"]
    visits[1].linears["k"] = Observation(seen.input.clone(), seen.gradients, seen.weight)
    with pytest.raises(ModelError, match="k: gets the input of 'q' in one batch, of 'k' in another"):
        collect(visits, grams=False)


def make_draw(windows: int = 6, ranges: int = 2, prices: int = 4, seq_len: int = 24) -> Draw:
    ids = np.random.default_rng(3).integers(0, 256, size=(windows + ranges + prices, seq_len))
    return Draw(*np.split(ids, [windows, windows + ranges]))


def test_windows_are_dealt_once_and_by_the_seed() -> None:
    tokens = Tokens(np.arange(40).reshape(10, 4), "sha256:0", 0)
    draw = split(tokens, statistics=5, ranges=2, prices=3, seed=0)
    assert [len(part) for part in (draw.statistics, draw.ranges, draw.prices)] == [5, 2, 3]
    dealt = np.concatenate([draw.statistics, draw.ranges, draw.prices])
    assert sorted(dealt[:, 0]) == list(range(0, 40, 4))
    for part in (draw.statistics, draw.prices):
        assert list(part[:, 0]) == sorted(part[:, 0])
    other = split(tokens, statistics=5, ranges=2, prices=3, seed=1)
    assert len({draw.fingerprints, other.fingerprints, (draw.fingerprints[0], other.fingerprints[1])}) == 3
    for numbers in ((5, 2, 4), (0, 5, 5), (9, 2, -1)):
        with pytest.raises(ArgumentError, match="10 windows cannot be dealt"):
            split(tokens, **dict(zip(("statistics", "ranges", "prices"), numbers, strict=True)), seed=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    # 72 columns of down_proj are no multiple of 16
    return open_model(build("llama", tmp_path_factory.mktemp("llama"), intermediate_size=72))


@pytest.fixture(scope="module")
def result(model: Model) -> sensitivity_file.Sensitivity:
    return probe(model, make_draw(), schemes=MENU, preset="rtn", probes=2, price_probes=3, seed=5)


def test_result_is_in_model_order_and_says_what_it_was_made_from(model, result) -> None:
    assert [unit.name for unit in result.units] == [unit.name for unit in model.units]
    assert [linear.name for unit in result.units for linear in unit.linears] == [o.name for o in model.linears()]
    assert (result.model, result.data, result.price_data) == (model.fingerprint, *make_draw().fingerprints)
    assert (result.tokens, result.seq_len, result.probes, result.seed) == (6 * 24, 24, 2, 5)
    assert (result.price_tokens, result.price_probes) == (4 * 24, 3)
    assert (result.preset, result.prices) == ("rtn", DEFAULT_PRICES)
    for linear in model.linears():
        assert result.fisher_rows[linear.name].shape == (linear.rows,)
        assert result.fisher_rows[linear.name].dtype == np.float32


def test_statistics_equal_those_of_the_whole_model(model, result) -> None:
    names = [linear.name for linear in model.linears()]
    seen = autograd_oracle.observe(model.path, make_draw().statistics, 2, names, seed=5)
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
        assert unit.candidates[-1].prices == dict.fromkeys(DEFAULT_PRICES, 0.0)


@pytest.mark.parametrize("scheme", ["FP8_DYNAMIC", "NVFP4", "NVFP4A16"])
def test_prices_are_those_of_the_rendered_bytes_and_served_inputs(model, result, scheme: str) -> None:
    """Once by hand: o_proj, a unit of one Linear, so that nothing is shared."""
    number = [unit.name for unit in model.units].index("model.layers.1.self_attn.o_proj")
    unit, measured = model.units[number], result.units[number]
    (linear,) = unit.linears
    facts = formats.get_scheme(scheme)
    weight = model.read_weight(linear)
    quantized = solve(weight, facts.weight_format, preset="rtn").quantized
    decoded = get_codec(facts.weight_format).decode(quantized).astype(np.float64)
    draw = make_draw()
    ids = np.concatenate([draw.statistics, draw.ranges, draw.prices])
    x, g = autograd_oracle.observe(model.path, ids, 3, [linear.name], seed=5)[linear.name]
    x, g = x[-4 * 24 :], g[:, -4 * 24 :].double().numpy()
    scale = static_scale(facts.activations, measured.input_amax, measured.input_global_scale)
    served = x if facts.activations is None else quantize_input(x, facts.activations, scale)
    assert torch.equal(served, x) == (scheme == "NVFP4A16")
    dy = served.double().numpy() @ decoded.T - x.double().numpy() @ weight.astype(np.float64).T
    products = np.einsum("kto,to->kt", g, dy)
    expected = {
        "fisher-trace": 0.5
        * np.einsum("kto,tc->", g**2, x.double().numpy() ** 2)
        / 3
        * ((decoded - weight) ** 2).mean(),
        "fisher-gram": 0.5 * np.square(g).mean(axis=(0, 1)) @ np.square(dy).sum(axis=0),
        "directional": 0.5 * np.square(products).sum() / 3,
        "directional-sequence": 0.5 * np.square(products.reshape(3, 4, 24).sum(axis=2)).sum() / 3,
    }
    candidate = next(each for each in measured.candidates if each.scheme == scheme)
    assert candidate.squared_error == pytest.approx(((decoded - weight) ** 2).sum(), rel=1e-6)
    assert candidate.prices.keys() == expected.keys()
    for price, total in expected.items():
        assert candidate.prices[price] == pytest.approx(total / (4 * 24), rel=5e-3), price


def test_window_sums_add_up_and_give_the_standard_error(result) -> None:
    for unit in result.units:
        for price in DEFAULT_PRICES:
            sums = result.price_sums[f"{unit.name}/{price}"]
            assert (sums.dtype, sums.shape) == (np.float32, (len(unit.candidates), 4))
            prices = [candidate.prices[price] for candidate in unit.candidates]
            np.testing.assert_allclose(sums.sum(axis=1) / result.price_tokens, prices, rtol=1e-5)
    names = [unit.name for unit in result.units[:2]]
    rows = sum(result.price_sums[f"{name}/directional"][0].astype(float) for name in names) / 24
    error = result.standard_error(dict.fromkeys(names, "NVFP4A16"), "directional")
    assert error == pytest.approx(rows.std(ddof=1) / 2, rel=1e-6)
    assert result.standard_error({}, "directional") is None
    assert result.standard_error({names[0]: "NVFP4A16"}, "kfac") is None


def test_quantized_inputs_are_those_of_compressed_tensors() -> None:
    lifecycle = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    from compressed_tensors.quantization import preset_name_to_scheme
    from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

    x = torch.randn(40, 256, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.01, 8, 256)
    # Not W8A8: vLLM divides by 127 where compressed-tensors divides by 127.5.
    for preset in ("FP8_DYNAMIC", "FP8_BLOCK", "MXFP4", "MXFP8"):
        args = preset_name_to_scheme(preset, ["Linear"]).input_activations
        scale, zero_point = compute_dynamic_scales_and_zp(x[None], args, None)
        expected = lifecycle.fake_quantize(x[None], scale, zero_point, args)[0]
        assert torch.equal(quantize_input(x, formats.get_scheme(preset).activations, None), expected)
    args = preset_name_to_scheme("FP8", ["Linear"]).input_activations
    static = torch.tensor([static_scale("fp8_static", 6.0)])  # clips what is larger
    expected = lifecycle.fake_quantize(x[None], static, torch.zeros(1), args)[0]
    assert torch.equal(quantize_input(x, "fp8_static", float(static)), expected)
    args = preset_name_to_scheme("NVFP4", ["Linear"]).input_activations
    divisor = torch.tensor([448.0 * 6 / float(x.abs().max())])
    scale, zero_point = compute_dynamic_scales_and_zp(x[None], args, None, global_scale=divisor)
    expected = lifecycle.fake_quantize(x[None], scale, zero_point, args, global_scale=divisor)[0]
    assert float((quantize_input(x, "nvfp4", float(divisor)) != expected).float().mean()) < 0.01  # ties, see interop


def test_ranges_of_inputs_are_chosen_by_the_error_on_other_windows(model) -> None:
    """Where one early outlier is never seen again, the range is smaller than it was."""
    (unit,) = (unit for unit in model.units if unit.name == "model.layers.0.mlp.gate_up_proj")
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(2, 96, 64, generator=generator)
    inputs[0, 0, 0] = 128.0 * 2688
    names = [linear.name for linear in unit.linears]
    visits = []
    for x in inputs:
        gradients = torch.randn(1, 96, 72, generator=generator)
        weight = torch.randn(72, 64, generator=generator)
        visits.append(Visit(0, batch_of(tokens=96), {name: Observation(x, gradients, weight) for name in names}))
    statistics = collect(visits[:1], grams=False)
    plain = choose_input_global_scales([unit], [], statistics)
    assert plain == {unit.name: 1 / 128}
    assert choose_input_global_scales([unit], visits[1:], statistics)[unit.name] > 1 / 128


def test_fewer_bits_cost_more(result) -> None:
    for unit in result.units:
        prices = {candidate.scheme: candidate.prices["fisher-gram"] for candidate in unit.candidates}
        order = [prices[name] for name in MENU if name in prices]
        if "NVFP4" in prices:
            assert prices["NVFP4A16"] < prices["NVFP4"] > prices["FP8_DYNAMIC"]  # quantized inputs cost more
        weights_only = [candidate.prices["fisher-trace"] for candidate in unit.candidates]
        assert weights_only == sorted(weights_only, reverse=True)
        assert order[-2] > order[-1] == 0


def test_schemes_of_one_weight_format_share_a_rendering(model, result, monkeypatch) -> None:
    made = []

    def counted(model, unit, format, **options):
        made.append((unit.name, format))
        return plain(model, unit, format, **options)

    plain = layer.render_cached
    monkeypatch.setattr(layer, "render_cached", counted)
    again = probe(model, make_draw(), schemes=MENU, preset="rtn", probes=2, price_probes=3, seed=5)
    assert again == result
    assert len(made) == len(set(made)) == 6 * 3 + 2 * 2
    for unit in (unit for unit in again.units if not unit.name.endswith("down_proj")):
        weight_only, native = unit.candidates[:2]
        assert weight_only.prices["fisher-trace"] == native.prices["fisher-trace"]
        assert weight_only.prices["directional"] < native.prices["directional"]
        assert native.bytes == weight_only.bytes + 4 * len(unit.linears)


def test_cache_keeps_what_was_priced(model, result, tmp_path) -> None:
    cache = RenderCache(tmp_path, model.fingerprint, "rtn")
    again = probe(model, make_draw(), schemes=MENU, preset="rtn", probes=2, price_probes=3, seed=5, cache=cache)
    assert again == result
    for unit in model.units:
        assert cache.get(unit, "fp8_e4m3_channel") is not None


def test_solvers_get_the_windows_that_set_no_prices(model, monkeypatch) -> None:
    seen = []

    def counted(model, unit, format, *, grams, **options):
        seen.append({(known.tokens, known.output_tokens) for known in grams.values()})
        return plain(model, unit, format, grams=grams, **options)

    plain = layer.render_cached
    monkeypatch.setattr(layer, "render_cached", counted)
    draw = make_draw()
    solved = probe(model, draw, schemes=["NVFP4A16"], preset="best", probes=2)
    assert all(tokens == {(6 * 24, 6 * 24 * 2)} for tokens in seen)
    assert len(seen) == 6
    monkeypatch.undo()
    free = probe(model, draw, schemes=["NVFP4A16"], preset="rtn", probes=2)
    for unit, other in zip(solved.units, free.units, strict=True):
        assert unit.linears == other.linears
        for solved_for, rounded in zip(unit.candidates, other.candidates, strict=True):
            assert solved_for.prices["fisher-gram"] < rounded.prices["fisher-gram"]


def test_result_survives_its_file(result, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    sensitivity_file.write(path, result)
    back = sensitivity_file.read(path)
    assert back == result
    for kept, read in ((result.fisher_rows, back.fisher_rows), (result.price_sums, back.price_sums)):
        assert kept.keys() == read.keys()
        assert all(np.array_equal(read[name], array) for name, array in kept.items())


def test_progress_prices_every_unit(model) -> None:
    events = []
    probe(model, make_draw(2, 0, 1), schemes=["BF16"], preset="rtn", progress=events.append)
    assert [e.done for e in events if e.stage == "price"] == [4, 8]
    assert {e.total for e in events if e.stage == "price"} == {8}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"schemes": ["NVFP5"]}, FormatError, "unknown scheme 'NVFP5'.*did you mean 'NVFP4'"),
        ({"schemes": []}, ArgumentError, "schemes is empty"),
        ({"preset": "magic"}, FormatError, "unknown preset 'magic'"),
        ({"probes": 0}, ArgumentError, "probes 0"),
        ({"prices": ["kfca"]}, FormatError, "unknown price 'kfca'.*did you mean 'kfac'"),
        ({"prices": []}, ArgumentError, "prices is empty"),
    ],
)
def test_arguments_are_checked_before_work(model, options, error, message) -> None:
    def fail(event) -> None:
        pytest.fail("work was started")

    with pytest.raises(error, match=message):
        probe(model, make_draw(), **{"schemes": MENU, "preset": "rtn", **options}, progress=fail)


def test_threads_hold_for_the_probe_only(model, result) -> None:
    before, seen = torch.get_num_threads(), set()
    again = probe(
        model,
        make_draw(),
        schemes=MENU,
        preset="rtn",
        probes=2,
        price_probes=3,
        seed=5,
        threads=before + 1,
        progress=lambda event: seen.add(torch.get_num_threads()),
    )
    assert seen == {before + 1}
    assert torch.get_num_threads() == before
    assert again == result
    for name, sums in result.price_sums.items():
        assert np.array_equal(again.price_sums[name], sums)
