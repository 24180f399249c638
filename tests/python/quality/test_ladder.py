"""The parts of the quality benchmark against plain definitions, on the bundled model."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import prismaquant as pq

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tools(root: Path) -> Any:
    """The modules of the benchmark, which are scripts and not a package."""
    folder = str(root / "benchmarks" / "quality")
    sys.path.insert(0, folder)
    try:
        import capture
        import divergence
        import experts
        import network
        import rungs
    finally:
        sys.path.remove(folder)
    return SimpleNamespace(capture=capture, divergence=divergence, experts=experts, network=network, rungs=rungs)


@pytest.fixture
def network(tools: Any, tiny_llama: Path) -> Any:
    return tools.network.Network.load(tiny_llama)


@pytest.fixture(scope="module")
def ids() -> Any:
    return torch.from_numpy(np.random.default_rng(5).integers(0, 4096, (10, 16)))


def test_linears_are_grouped_by_their_input(network: Any) -> None:
    ends = [[name.rsplit(".", 1)[1] for name in group] for group in network.groups[0]]
    assert ends == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
    assert len(network.names()) == 42


def test_grams_are_sums_over_all_tokens(tools: Any, network: Any, ids: Any) -> None:
    statistics = tools.capture.capture(network, ids, seed=0)
    assert set(statistics.tokens.values()) == {160}
    hidden = network.model.model.embed_tokens(ids)
    inputs = network.layers[0].input_layernorm(hidden).flatten(0, 1).detach().double()
    for name in network.groups[0][0]:
        torch.testing.assert_close(statistics.gram[name].double(), inputs.T @ inputs, rtol=1e-4, atol=1e-4)


def test_output_grams_predict_the_divergence_of_a_small_step(tools: Any, network: Any, ids: Any) -> None:
    """With y + u for every token at the last layer's output projection, KL per token is u' G u / 2 tokens."""
    statistics = tools.capture.capture(network, ids.repeat(4, 1), seed=0)
    evaluation = tools.divergence.Evaluation(network, ids)
    name = network.groups[-1][-1][0]
    gram = statistics.output_gram[name].double()
    values, vectors = torch.linalg.eigh(gram)
    step = 0.02 * vectors[:, -1]
    module = network.model.get_submodule(name)
    handle = module.register_forward_hook(lambda _, __, output: output + step.float())
    measured = evaluation.kl({}).mean()
    handle.remove()
    predicted = float(0.5 * 0.02**2 * values[-1] / statistics.tokens[name])
    assert measured == pytest.approx(predicted, rel=0.3)  # 640 sampled residuals


def test_a_walk_sees_the_source_where_nothing_was_changed(tools: Any, network: Any, ids: Any) -> None:
    statistics = tools.capture.capture(network, ids, seed=0)
    seen: dict[str, Any] = {}

    def solve(names: list[str], grams: Any) -> dict[str, Any]:
        seen[names[0]] = grams
        return {name: network.weight(name).clone() for name in names}

    tools.capture.walk_shifted(network, ids, solve)
    for name, grams in seen.items():
        torch.testing.assert_close(grams.gram, statistics.gram[name], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(grams.cross_gram, grams.gram, rtol=1e-3, atol=1e-3)


def test_a_walk_sees_what_was_changed_before(tools: Any, network: Any, ids: Any) -> None:
    """Zeroed values of the first attention: its output projection then gets zeros, the source's inputs stay."""
    seen: dict[str, Any] = {}

    def solve(names: list[str], grams: Any) -> dict[str, Any]:
        seen[names[0]] = grams
        return {name: network.weight(name) * (0 if name.endswith("v_proj") else 1) for name in names}

    tools.capture.walk_shifted(network, ids, solve)
    first = network.groups[0]
    assert not seen[first[1][0]].gram.any()
    assert not torch.equal(seen[first[2][0]].gram, seen[first[2][0]].cross_gram)


def test_planted_outliers_keep_the_function(tools: Any, network: Any, ids: Any) -> None:
    evaluation = tools.divergence.Evaluation(network, ids)
    before = network.weight(network.names()[0]).clone()
    tools.network.plant_outliers(network)
    assert not torch.equal(network.weight(network.names()[0]), before)
    assert evaluation.kl({}).max() < 1e-9


def test_weights_are_put_back(tools: Any, network: Any, ids: Any) -> None:
    evaluation = tools.divergence.Evaluation(network, ids)
    name = network.names()[0]
    assert evaluation.kl({name: network.weight(name) * 1.1}).min() > 0
    assert evaluation.kl({}).max() == 0


def test_inputs_are_changed_for_one_measurement(tools: Any, network: Any, ids: Any) -> None:
    evaluation = tools.divergence.Evaluation(network, ids)
    name = network.names()[0]
    assert evaluation.kl({}, {name: lambda x: x}).max() == 0
    assert evaluation.kl({}, {name: lambda x: 1.1 * x}).min() > 0
    assert evaluation.kl({}).max() == 0


def test_a_model_writes_its_own_text(network: Any) -> None:
    first, again = (network.sample(3, 12, seed=1) for _ in range(2))
    assert first.shape == (3, 12)
    assert (first[:, 0] == network.model.config.bos_token_id).all()
    assert torch.equal(first, again)
    assert len(first.unique()) > 10


def test_every_rung_can_be_solved(tools: Any) -> None:
    draw = np.random.default_rng(0)
    weight = draw.normal(size=(16, 64)).astype(np.float32)
    x, g = draw.normal(size=(2, 400, 64)).astype(np.float32)
    for format, ladder in tools.rungs.LADDERS.items():
        assert sum(rung.is_reference for rung in ladder) == 1
        for rung in ladder:
            given: dict[str, Any] = {}
            if rung.uses_gram:
                given = {"gram": x.T @ x, "tokens": 400}
            if rung.uses_output_gram:
                given |= {"output_gram": g[:, :16].T @ g[:, :16], "output_tokens": 400}
            if rung.is_shifted:
                given |= {"cross_gram": x.T @ x}
            assert pq.solve(weight, format, preset=rung.stages, **given).report.squared_error > 0


def test_a_ratio_is_paired(tools: Any) -> None:
    windows = np.random.default_rng(1).lognormal(size=40)
    assert tools.divergence.ratio_interval(0.5 * windows, windows) == pytest.approx((0.5, 0.5, 0.5))


@pytest.fixture
def moe(tools: Any) -> tuple[Any, Any]:
    """A random model with packed experts, as transformers runs it and as the benchmark does."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 100}
    config = Qwen3MoeConfig(**sizes, **heads, num_experts=8, num_experts_per_tok=2, decoder_sparse_step=1)
    model = Qwen3MoeForCausalLM(config).eval()
    ids = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        logits = model(ids).logits
    tools.experts.unpack_experts(model)
    return tools.network.Network.of(model), (ids, logits)


def test_unpacked_experts_keep_the_function_and_count_their_tokens(tools: Any, moe: Any) -> None:
    network, (ids, logits) = moe
    with torch.no_grad():
        torch.testing.assert_close(network.logits(ids), logits)
    assert len(network.names()) == 2 * (4 + 8 * 3)
    assert len(network.experts) == 2 * 8 * 3
    groups = [sorted(group) for group in network.groups[1] if ".experts.5." in group[0]]
    assert groups[0] == [f"model.layers.1.mlp.experts.5.{name}_proj" for name in ("gate", "up")]
    statistics = tools.capture.capture(network, ids[:1], seed=0)
    gates = [name for name in network.experts if "layers.0" in name and name.endswith("gate_proj")]
    assert sum(statistics.tokens[name] for name in gates) == 10 * 2
    unseen = [name for name in gates if statistics.tokens[name] == 0]
    assert all(not statistics.gram[name].any() and not statistics.output_gram[name].any() for name in unseen)
    pooled, tokens = statistics.pooled(gates[0])
    assert tokens == 20
    torch.testing.assert_close(pooled, sum(statistics.gram[name] for name in gates))
