"""`walk` sees what whole-model autograd sees, one layer at a time, whatever the batches."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from prismaquant.errors import ArgumentError, DataError, ModelError, NumericError, RefusedError
from prismaquant.model import open_model
from prismaquant.streaming import Spool, Visit, Windows, calls, skeleton, walk
from support import autograd_oracle
from support.tiny_models import build

WINDOWS, SEQ_LEN = 5, 40  # longer than the sliding windows of the tiny models, and an uneven last batch
CASES = {
    "llama": {},
    "llama-tied": {"tie_word_embeddings": True},
    "llama-rope": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    "mistral": {},
    "qwen2": {},
    "qwen2-sliding": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "qwen3": {"attention_bias": True},
    "qwen3-tied": {"tie_word_embeddings": True},
    "gemma3_text": {},
    "gemma3_text-softcap": {"final_logit_softcapping": 2.0, "tie_word_embeddings": False},
}


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    ids = np.random.default_rng(1).integers(2, 256, size=(WINDOWS, SEQ_LEN))
    ids[:, 0] = 0
    return ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("llama"), dtype="float32")


def gather(visits: list[Visit]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Linear name -> inputs and gradients of all batches."""
    result = {}
    for _, group in itertools.groupby(visits, key=lambda visit: visit.layer):
        batches = list(group)
        for name in batches[0].linears:
            seen = [batch.linears[name] for batch in batches]
            result[name] = torch.cat([s.input for s in seen]), torch.cat([s.gradients for s in seen], dim=1)
    return result


def assert_near(got: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("case", CASES)
def test_walk_equals_whole_model_autograd(case: str, ids: np.ndarray, tmp_path: Path) -> None:
    folder = build(case.split("-")[0], tmp_path, **CASES[case])
    model = open_model(folder)
    names = [linear.name for linear in model.linears()]
    expected = autograd_oracle.observe(folder, ids, 2, names, seed=7)
    got = gather(list(walk(model, [Windows(ids, 2)], seed=7, batch_windows=2)))
    assert got.keys() == set(names)
    for name in names:
        assert got[name][0].dtype == got[name][1].dtype == torch.float32
        assert expected[name][1].abs().max() > 0
        assert_near(got[name][0], expected[name][0], 1e-4)
        assert_near(got[name][1], expected[name][1], 2e-4)


def test_visits_come_last_layer_first_with_all_its_batches(folder: Path, ids: np.ndarray) -> None:
    visits = list(walk(open_model(folder), [Windows(ids)], batch_windows=2))
    assert [(visit.layer, visit.batch.number) for visit in visits] == [(1, 0), (1, 1), (1, 2), (0, 0), (0, 1), (0, 2)]
    tokens = [visit.linears["model.layers.0.mlp.down_proj"].input.shape[0] for visit in visits[3:]]
    assert tokens == [2 * SEQ_LEN, 2 * SEQ_LEN, SEQ_LEN]


def test_batches_change_nothing_but_rounding(folder: Path, ids: np.ndarray) -> None:
    one, all_at_once = (
        gather(list(walk(open_model(folder), [Windows(ids, 2)], batch_windows=size))) for size in (1, WINDOWS)
    )
    for name in one:
        assert_near(one[name][0], all_at_once[name][0], 1e-5)
        assert_near(one[name][1], all_at_once[name][1], 1e-5)


def test_seed_window_and_probe_fix_the_gradients(folder: Path, ids: np.ndarray) -> None:
    name = "model.layers.1.mlp.down_proj"
    model = open_model(folder)
    first, again, other = (gather(list(walk(model, [Windows(ids, 2)], seed=seed)))[name][1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first[0], first[1])
    same_text = np.repeat(ids[:1], 2, axis=0)
    gradients = gather(list(walk(model, [Windows(same_text)])))[name][1][0]
    assert not torch.allclose(gradients[:SEQ_LEN], gradients[SEQ_LEN:])


def test_linears_that_share_an_input_hold_one_tensor(folder: Path, ids: np.ndarray) -> None:
    seen = next(walk(open_model(folder), [Windows(ids)])).linears
    attention, mlp = "model.layers.1.self_attn.", "model.layers.1.mlp."
    assert seen[f"{attention}q_proj"].input is seen[f"{attention}k_proj"].input is seen[f"{attention}v_proj"].input
    assert seen[f"{mlp}gate_proj"].input is seen[f"{mlp}up_proj"].input
    assert len({id(observation.input) for observation in seen.values()}) == 4


def real_parameters(visits) -> set[str]:
    causal = visits.gi_frame.f_locals["skeleton"].causal
    return {name for name, parameter in causal.named_parameters(remove_duplicate=False) if not parameter.is_meta}


def test_one_layer_is_real_at_a_time(folder: Path, ids: np.ndarray) -> None:
    model = open_model(folder)
    largest = []

    def look(event) -> None:
        real = real_parameters(visits)
        largest.append(len({name.split(".")[2] for name in real if ".layers." in name}))
        assert ("model.embed_tokens.weight" in real) + ("lm_head.weight" in real) <= (event.stage == "head")

    visits = walk(model, [Windows(ids)], batch_windows=2, progress=look)
    for visit in visits:
        assert real_parameters(visits) == {n for n in model.tensors if n.startswith(f"model.layers.{visit.layer}.")}
    assert max(largest) == 1
    assert largest.count(0) == WINDOWS  # the head's turn


@pytest.mark.parametrize("stop", ["close", "throw"])
def test_stopping_early_leaves_nothing_real(folder: Path, ids: np.ndarray, stop: str) -> None:
    visits = walk(open_model(folder), [Windows(ids)])
    next(visits)
    causal = visits.gi_frame.f_locals["skeleton"].causal
    assert real_parameters(visits)
    if stop == "close":
        visits.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            visits.throw(KeyboardInterrupt)
    assert all(parameter.is_meta for parameter in causal.parameters())
    assert torch.is_grad_enabled()


def test_consumer_without_gradients_is_served(folder: Path, ids: np.ndarray) -> None:
    with torch.no_grad():
        assert (
            next(walk(open_model(folder), [Windows(ids)])).linears["model.layers.1.mlp.down_proj"].gradients.abs().max()
            > 0
        )


def test_progress_counts_every_batch(folder: Path, ids: np.ndarray) -> None:
    events = []
    list(walk(open_model(folder), [Windows(ids)], batch_windows=2, progress=events.append))
    steps = {stage: [e.done for e in events if e.stage == stage] for stage in ("forward", "head", "backward")}
    assert steps == {"forward": [1, 2, 3, 4, 5, 6], "head": [1, 2, 3, 4, 5], "backward": [1, 2, 3, 4, 5, 6]}
    assert {event.total for event in events if event.stage != "head"} == {6}


def test_overflow_names_layer_and_window(ids: np.ndarray, tmp_path: Path) -> None:
    folder = build("llama", tmp_path, dtype="float32")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.o_proj.weight"][:] = 3e38
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericError, match=r"layer 1, window 0: .*NaN or infinite"):
        next(walk(open_model(folder), [Windows(ids)]))


def test_overflow_in_one_window_is_found(ids: np.ndarray, tmp_path: Path) -> None:
    folder = build("gemma3_text", tmp_path, dtype="float32")
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][1] = 3e38  # times the embedding scale: infinite
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ids = ids.copy()
    ids[3, 5] = 1
    begin = " ".join(map(str, ids[3, :8]))
    with pytest.raises(NumericError, match=f"embedding, window 3: .*from token 5 on; the window has the ids {begin} "):
        next(walk(open_model(folder), [Windows(ids)], batch_windows=2))


def test_bad_weight_is_named(ids: np.ndarray, tmp_path: Path) -> None:
    folder = build("llama", tmp_path, dtype="float32")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:3] = np.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericError, match=r"'model.norm.weight' has 3 values"):
        next(walk(open_model(folder), [Windows(ids)]))


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("model.layers.1.input_layernorm.weight", None, "has no tensor 'model.layers.1.input_layernorm.weight'"),
        ("lm_head.weight", np.zeros((8, 64), np.float32), r"'lm_head.weight' has shape \[8, 64\], .* \[256, 64\]"),
        ("model.norm.weight", np.zeros(64, np.int8), "'model.norm.weight' has dtype I8; accepted: BF16, F16, F32"),
    ],
)
def test_unfit_tensors_are_refused_before_work(ids: np.ndarray, tmp_path: Path, name, weight, message) -> None:
    folder = build("llama", tmp_path, dtype="float32")
    weights = load_file(folder / "model.safetensors")
    weights[name] = weight
    weights = {key: value for key, value in weights.items() if value is not None}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=message):
        walk(open_model(folder), [Windows(ids)])


def test_arguments_are_checked_before_work(folder: Path, ids: np.ndarray) -> None:
    model = open_model(folder)
    with pytest.raises(ArgumentError, match="probes 0"):
        walk(model, [Windows(ids, 0)])
    with pytest.raises(DataError, match=r"shape \[5\]"):
        walk(model, [Windows(ids[:, 0])])
    with pytest.raises(DataError, match=r"token id 256 at position \[0, 1\]"):
        walk(model, [Windows(np.array([[0, 256]]))])


def test_shared_weights_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = skeleton._build

    def shared(model):
        causal = plain(model)
        causal.model.layers[1].mlp.up_proj.weight = causal.model.layers[0].mlp.up_proj.weight
        return causal

    monkeypatch.setattr(skeleton, "_build", shared)
    with pytest.raises(ModelError, match=r"layers.1.mlp.up_proj.weight is the same parameter as model.layers.0"):
        skeleton.Skeleton(open_model(folder))


def fake(decoder, layer=None) -> SimpleNamespace:
    layers = [torch.nn.Identity(), layer or torch.nn.Identity()]
    return SimpleNamespace(layers=layers, names=["layers.0", "layers.1"], decoder=lambda **_: decoder(layers))


def test_shared_state_is_refused() -> None:
    with pytest.raises(ModelError, match=r"layers\.1: argument 'cache' of Identity is a SimpleNamespace"):
        calls.embed(fake(lambda layers: layers[1](layers[0](torch.ones(1)), cache=SimpleNamespace())), torch.ones(1))


def test_layer_called_twice_is_refused() -> None:
    with pytest.raises(ModelError, match=r"order \[0, 1, 1\]"):
        calls.embed(fake(lambda layers: layers[1](layers[1](layers[0](torch.ones(1))))), torch.ones(1))


def test_layer_that_returns_something_else_is_refused() -> None:
    class Pair(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, None]:
            return hidden, None

    with pytest.raises(ModelError, match=r"layers\.1: Pair returns a tuple, expected torch.float32"):
        calls.run(fake(None, Pair()), 1, torch.ones(1, 2, 3), calls.Call((), {}))


def test_arguments_that_depend_on_the_tokens_are_refused(folder: Path, ids, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = calls.embed

    def embed(skeleton, batch):
        hidden, made = plain(skeleton, batch)
        made[1].kwargs["bias"] = (batch.float(), [1, {"scale": 2.0}])
        return hidden, made

    monkeypatch.setattr(calls, "embed", embed)
    with pytest.raises(ModelError, match=r"layers\.1: its arguments depend on the tokens"):
        next(walk(open_model(folder), [Windows(ids)], batch_windows=2))
    next(walk(open_model(folder), [Windows(np.repeat(ids[:1], 4, axis=0))], batch_windows=2))


def test_parts_come_one_after_the_other_with_their_own_probes(folder: Path, ids: np.ndarray) -> None:
    """Windows keep their residuals whatever part they are in: these depend on the index over all parts."""
    model, name = open_model(folder), "model.layers.1.mlp.down_proj"
    visits = list(walk(model, [Windows(ids[:3]), Windows(ids[3:], 2)], batch_windows=2))
    assert [(v.layer, v.part, v.batch.number, v.batch.window) for v in visits] == [
        (layer, *batch) for layer in (1, 0) for batch in ((0, 0, 0), (0, 1, 2), (1, 0, 3), (1, 1, 4))
    ]
    whole = gather(list(walk(model, [Windows(ids, 2)])))[name]
    first, last = (gather([visit for visit in visits if visit.part == part])[name] for part in (0, 1))
    assert_near(torch.cat([first[0], last[0]]), whole[0], 1e-5)
    assert_near(first[1], whole[1][:1, : 3 * SEQ_LEN], 1e-5)
    assert_near(last[1], whole[1][:, 3 * SEQ_LEN :], 1e-5)


def test_a_skipped_layer_is_passed(folder: Path, ids: np.ndarray) -> None:
    model, parts = open_model(folder), [Windows(ids)]
    below = [visit for visit in walk(model, parts) if visit.layer == 0]
    skipped = list(walk(model, parts, skip={1}))
    assert [visit.layer for visit in skipped] == [0]
    for name, seen in below[0].linears.items():
        assert torch.equal(skipped[0].linears[name].gradients, seen.gradients)


def test_a_spool_of_files_changes_nothing_and_leaves_nothing(folder: Path, ids: np.ndarray, tmp_path: Path) -> None:
    model, parts = open_model(folder), [Windows(ids[:3]), Windows(ids[3:], 2)]
    held = list(walk(model, parts))
    filed = list(walk(model, parts, spool=Spool(tmp_path)))
    for one, other in zip(held, filed, strict=True):
        for name, seen in one.linears.items():
            assert torch.equal(other.linears[name].input, seen.input)
            assert torch.equal(other.linears[name].gradients, seen.gradients)
    assert list(tmp_path.iterdir()) == []
    visits = walk(model, parts, spool=Spool(tmp_path))
    next(visits)
    assert list(tmp_path.iterdir())
    visits.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_with_a_way_out(folder: Path, ids: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"(?s)input-0-0-0.f32: cannot be written.*--max-memory"):
        next(walk(open_model(folder), [Windows(ids)], spool=Spool(tmp_path / "missing")))


def test_the_bytes_do_not_depend_on_the_threads(folder: Path, ids: np.ndarray) -> None:
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            runs.append(gather(list(walk(open_model(folder), [Windows(ids, 2)]))))
    finally:
        torch.set_num_threads(before)
    for name, (inputs, gradients) in runs[0].items():
        assert torch.equal(runs[1][name][0], inputs)
        assert torch.equal(runs[1][name][1], gradients)
