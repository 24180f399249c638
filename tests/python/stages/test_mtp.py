"""The layer that predicts a further token, measured by the loss of its own predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import MtpModel

import prismaquant as pq
from prismaquant.calibration import probe, split
from prismaquant.codec import get_codec
from prismaquant.errors import ArgumentError
from prismaquant.files.manifest import read as read_manifest
from prismaquant.formats import get_scheme
from prismaquant.model import Model, Unit, open_model
from prismaquant.model.kept import NO_LAYER
from prismaquant.model.mtp import with_mtp
from prismaquant.rendering.render import Rendering, render
from prismaquant.streaming import Tokens, Windows, walk
from prismaquant.streaming.forward import Forward
from prismaquant.streaming.skeleton import Skeleton
from support.tiny_models import add_further_layer, build

WINDOWS, SEQ_LEN = 6, 24
KINDS = ("qwen3_5", "qwen3_5_moe_text", "qwen3_next", "deepseek_v3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    built = {kind: build(kind, tmp_path_factory.mktemp("models") / kind) for kind in KINDS}
    for folder in built.values():
        add_further_layer(folder)
    return built


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return np.random.default_rng(1).integers(2, 256, size=(WINDOWS, SEQ_LEN))


def logits_of(model: Model, ids: np.ndarray, unit: Unit | None = None) -> torch.Tensor:
    """Of the layer, by modules that are all filled at once, with ``unit`` in FP8; ``[windows, tokens, vocabulary]``."""
    skeleton = Skeleton(model)
    (batch,) = Windows(ids).batches(0, 0, WINDOWS)
    (further,) = Windows(ids[:, 1:]).batches(0, 0, WINDOWS)
    forward, mtp = Forward(skeleton), skeleton.mtp
    names = [*skeleton.rest, *skeleton.embedding, *skeleton.head, *skeleton.mtp_tensors]
    with torch.no_grad(), skeleton.filled([*names, *(name for layer in skeleton.layer_tensors for name in layer)]):
        if unit is not None:
            replace(skeleton, unit, render(model, unit, "fp8_e4m3_channel", preset="rtn"))
        hidden = forward.embed(batch)
        for layer in range(len(skeleton.layers)):
            hidden = forward.layer(layer, hidden, batch)
        joined = mtp.join(forward.embed(further), skeleton.decoder.norm(hidden)[:, :-1])
        return skeleton.causal.lm_head(mtp.norm(mtp(joined, forward.call(mtp.like, further))))


def replace(skeleton: Skeleton, unit: Unit, rendering: Rendering) -> None:
    """Fill the real parameters of ``unit`` with what was rendered."""
    codec = get_codec("fp8_e4m3_channel")
    decoded = [torch.from_numpy(codec.decode(rendering.quantized[linear.name])) for linear in unit.linears]
    if unit.experts:
        bank, gates, ups = skeleton.submodule(unit.module), decoded[::3], decoded[1::3]
        bank.gate_up_proj[:] = torch.stack([torch.cat(pair) for pair in zip(gates, ups, strict=True)])
        bank.down_proj[:] = torch.stack(decoded[2::3])
        return
    for linear, weight in zip(unit.linears, decoded, strict=True):
        skeleton.submodule(linear.name).weight[:] = weight


def test_the_layer_computes_what_that_of_transformers_does(folders: dict[str, Path], ids: np.ndarray) -> None:
    main = AutoModelForCausalLM.from_pretrained(
        folders["deepseek_v3"], dtype=torch.float32, experts_implementation="eager"
    )
    main._keys_to_ignore_on_load_unexpected = [r"model\.layers\.2\..*"]  # that of the published model is the 61st
    further = MtpModel.from_pretrained(main)
    tokens = torch.from_numpy(ids)
    positions = torch.arange(SEQ_LEN - 1)[None]
    with torch.no_grad():
        hidden = main(tokens, output_hidden_states=True).hidden_states[-1]
        states = further.forward_layer(0, hidden[:, :-1], positions, None, input_ids=tokens[:, 1:])
        expected = main.lm_head(states)
    got = logits_of(with_mtp(open_model(folders["deepseek_v3"])), ids)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_prices_predict_the_divergence_of_its_own_predictions(
    folders: dict[str, Path], ids: np.ndarray, kind: str
) -> None:
    model = with_mtp(open_model(folders[kind]))
    tokens = Tokens(np.concatenate([ids, ids[:, ::-1]]), "", 0)
    draw = split(tokens, statistics=WINDOWS, ranges=0, prices=WINDOWS, seed=0)
    measured = probe(model, draw, schemes=["FP8A16"], preset="rtn", price_probes=48)
    units = [unit for unit in model.units if unit.layer == NO_LAYER]
    prices = {unit.name: unit.candidates[0].prices["directional"] for unit in measured.units}
    source = logits_of(model, draw.prices).log_softmax(-1)
    divergences = {}
    for unit in units:
        changed = logits_of(model, draw.prices, unit).log_softmax(-1)
        divergences[unit.name] = float((source.exp() * (source - changed)).sum(-1).mean())
    assert len(units) >= 4
    for name, divergence in divergences.items():
        # In front of a router, other experts are chosen now and then: no derivative sees that.
        if ".mlp." in name or kind == "qwen3_5":
            assert prices[name] == pytest.approx(divergence, rel=0.1), name


def test_the_layers_of_the_model_have_the_prices_that_they_have_alone(
    folders: dict[str, Path], ids: np.ndarray
) -> None:
    model = open_model(folders["qwen3_5"])
    alone = list(walk(model, [Windows(ids)]))
    both = list(walk(with_mtp(model), [Windows(ids)]))
    assert [visit.layer for visit in both] == [NO_LAYER, *(visit.layer for visit in alone)]
    for one, other in zip(alone, both[1:], strict=True):
        assert one.linears.keys() == other.linears.keys()
        for name in one.linears:
            assert torch.equal(one.linears[name].gradients, other.linears[name].gradients)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build("qwen3_5_moe_text", tmp_path_factory.mktemp("source") / "model", tokenizer=True)
    add_further_layer(folder)
    return folder


SMALL = {"samples": 8, "price_samples": 8, "seq_len": 32, "threads": 1}


def test_quantized_in_one_go(trained: Path, tmp_path: Path) -> None:
    report = pq.quantize(trained, tmp_path / "out", bpw=5.0, mtp=True, work_dir=tmp_path / "work", **SMALL)
    assert report.verify.ok
    units = {unit.name: unit for unit in report.plan.units if unit.name.startswith("mtp.")}
    assert {"mtp.fc", "mtp.layers.0.mlp.experts", "mtp.layers.0.self_attn.qkv_proj"} < units.keys()
    assert all(unit.price is not None for unit in units.values())
    assert any(get_scheme(unit.scheme).input_scale for unit in units.values())  # ranges of its inputs were measured
    (note,) = (note for note in report.plan.notes if note.code == "mtp-loss")
    assert note.text.startswith(f"{sum(unit.price for unit in units.values()):.3g} nats")
    written = {record.name: record.scheme for record in read_manifest(tmp_path / "out" / "prismaquant.json").linears}
    assert written["mtp.fc"] == units["mtp.fc"].scheme
    # The same again comes from the work folder; without mtp the plan has what was measured, too.
    again = pq.quantize(trained, tmp_path / "again", bpw=5.0, work_dir=tmp_path / "work", **SMALL)
    assert again.plan.units == report.plan.units
    for name in ("model.safetensors.index.json", "SHA256SUMS"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_verbs_one_by_one(trained: Path, tmp_path: Path) -> None:
    work, file = tmp_path / "work", tmp_path / "sensitivity.safetensors"
    plain = pq.probe(trained, out=file, work_dir=work, **SMALL)
    both = pq.probe(trained, out=file, work_dir=work, mtp=True, **SMALL)
    assert both.units[: len(plain.units)] == plain.units
    added = [unit.name for unit in both.units[len(plain.units) :]]
    assert added
    assert all(name.startswith("mtp.") for name in added)
    assert pq.probe(trained, out=file, work_dir=work, **SMALL).units == both.units
    plan = pq.plan(trained, both, bpw=6.0, pins=["mtp.fc=BF16"])
    assert next(unit.scheme for unit in plan.units if unit.name == "mtp.fc") == "BF16"
    assert pq.frontier(trained, both, points=3).vertices
    assert pq.explain(trained, plan, both, unit="mtp.layers.0.mlp.experts").units[0].agreement is not None
    polished = pq.polish(trained, plan, tmp_path / "polished", sensitivity=both, work_dir=work)
    assert not any(unit.name.startswith("mtp.") for unit in polished.units)
    out = pq.export(
        trained, plan, tmp_path / "out", sensitivity=both, work_dir=work, renderings=tmp_path / "polished"
    ).path
    assert pq.verify(out, source=trained).ok


def test_refused_where_nobody_knows_how_it_computes(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="entry llama does not say how MTP layers compute"):
        with_mtp(open_model(build("llama", tmp_path / "llama")))
    with pytest.raises(ArgumentError, match=r"has no mtp\.fc"):
        with_mtp(open_model(build("qwen3_5", tmp_path / "qwen")))
    with pytest.raises(ArgumentError, match="measured is of the model"):
        pq.probe(folders["qwen3_5"], mtp=True, prices=["measured"], work_dir=tmp_path / "work")
