"""`evaluate` on folders that third-party code wrote and loads."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prismaquant.errors import ArgumentError, MissingExtraError, ModelError
from prismaquant.evaluation.identity import folder_fingerprint
from prismaquant.evaluation.load import load
from prismaquant.evaluation.run import evaluate
from prismaquant.model import open_model
from prismaquant.progress import Event
from support.third_party import compress
from support.tiny_models import build

SEQ_LEN = 32


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "windows.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, size=(8, SEQ_LEN)))
    return path


@pytest.fixture(scope="module")
def mixed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    schemes = {"FP8_DYNAMIC": "re:.*self_attn.*_proj$", "NVFP4": "re:.*(gate|up)_proj$", "NVFP4A16": "re:.*down_proj$"}
    return compress(source, tmp_path_factory.mktemp("mixed"), schemes)


def change(source: Path, folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of ``source`` with its tensors edited."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    tensors = load_file(source / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def measure(checkpoint: Path, source: Path, data: Path, windows: int = 8, **options):
    return evaluate(checkpoint, source=source, data=data, tokens=windows * SEQ_LEN, seq_len=SEQ_LEN, **options)


def test_an_identical_folder_costs_exactly_nothing(source: Path, data: Path) -> None:
    result = measure(source, source, data)
    assert (result.kl.value, result.kl.low, result.kl.high, result.kl_p99) == (0, 0, 0, 0)
    assert (result.top1.value, result.top1.low, result.top1.high) == (1, 1, 1)
    assert result.perplexity == result.source_perplexity
    assert result.checkpoint == result.source == open_model(source).fingerprint
    assert (result.tokens, result.seq_len) == (8 * SEQ_LEN, SEQ_LEN)


def test_a_planted_change_is_measured_as_by_naive_float64_code(source: Path, data: Path, tmp_path: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.down_proj.weight"].mul_(1.0625)

    checkpoint = change(source, tmp_path / "changed", edit)
    result = measure(checkpoint, source, data)

    ids = torch.from_numpy(np.load(data))
    with torch.no_grad():
        p, q = (torch.nn.Module.double(load(folder))(ids).logits.log_softmax(-1) for folder in (source, checkpoint))
    kl = (p.exp() * (p - q)).sum(-1)
    assert result.kl.value == pytest.approx(kl.mean().item(), rel=1e-4)
    assert result.kl.low < result.kl.value < result.kl.high
    assert result.kl_p99 == pytest.approx(kl.quantile(0.99).item(), rel=1e-3)
    assert result.top1.value == pytest.approx((p.argmax(-1) == q.argmax(-1)).double().mean().item())
    for logp, perplexity in ((p, result.source_perplexity), (q, result.perplexity)):
        loss = -logp[:, :-1].gather(-1, ids[:, 1:, None]).mean().item()
        assert perplexity == pytest.approx(math.exp(loss), rel=1e-5)


def test_quantized_weights_are_those_of_transformers_widened(source: Path, mixed: Path) -> None:
    from transformers import AutoModelForCausalLM

    user = AutoModelForCausalLM.from_pretrained(mixed, dtype="auto")
    with torch.no_grad():
        user(torch.zeros(1, 4, dtype=torch.int64))
    ours = load(mixed).state_dict()
    weights = [name for name in ours if name.endswith("proj.weight")]
    assert len(weights) == 14
    for name, weight in user.state_dict().items():
        assert ours[name].dtype == torch.float32
        assert torch.equal(ours[name], weight.float()), name
    plain = load(source).state_dict()
    assert not any(torch.equal(ours[name], plain[name]) for name in weights)


def test_inputs_are_quantized_where_the_scheme_says_so(mixed: Path) -> None:
    model, x = load(mixed), torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))

    def output(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        module = model.get_submodule(name)
        inputs = x if module.in_features == 64 else x.repeat(1, 1, 2)
        with torch.no_grad():
            return module(inputs), inputs

    def plain(name: str, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ model.get_submodule(name).weight.T

    name = "model.layers.0.self_attn.q_proj"
    found, inputs = output(name)
    scale = inputs.abs().amax(-1, keepdim=True) / 448  # per token, in float32
    torch.testing.assert_close(found, plain(name, (inputs / scale).to(torch.float8_e4m3fn).float() * scale))
    assert not torch.allclose(found, plain(name, inputs), rtol=1e-3)

    name = "model.layers.0.mlp.up_proj"
    found, inputs = output(name)
    relative = ((found - plain(name, inputs)).norm() / plain(name, inputs).norm()).item()
    assert 0.03 < relative < 0.3  # 4-bit inputs

    name = "model.layers.0.mlp.down_proj"
    found, inputs = output(name)
    torch.testing.assert_close(found, plain(name, inputs))


def test_a_mixed_checkpoint_is_measured(source: Path, mixed: Path, data: Path) -> None:
    events: list[Event] = []
    result = measure(mixed, source, data, progress=events.append)
    assert 1e-4 < result.kl.low < result.kl.value < result.kl.high < 1
    assert result.checkpoint != result.source
    assert result.data.startswith("sha256:")
    assert (events[0].done, events[-1].done, events[-1].total) == (0, 8, 8)
    again = measure(mixed, source, data)
    assert (again.kl, again.top1) == (result.kl, result.top1)


def test_an_earlier_result_is_kept_only_if_it_is_of_the_same_folders_and_windows(
    source: Path, mixed: Path, data: Path, tmp_path: Path
) -> None:
    earlier = measure(mixed, source, data)
    assert measure(mixed, source, data, previous=earlier) is earlier
    assert measure(source, source, data, previous=earlier).kl.value == 0
    other = tmp_path / "other.npy"
    np.save(other, np.load(data)[::-1])
    assert measure(mixed, source, other, previous=earlier).data != earlier.data


def test_the_interval_covers_the_mean_of_more_windows(source: Path, mixed: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.npy"
    np.save(many, np.random.default_rng(1).integers(0, 256, size=(256, SEQ_LEN)))
    truth = measure(mixed, source, many, windows=256).kl.value
    few = measure(mixed, source, many, windows=32, seed=5).kl
    assert few.low < truth < few.high
    assert few.high - few.low < truth  # and says something


def test_libraries_stay_quiet(mixed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(mixed)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.weight_scale",
        "model.layers.1.mlp.up_proj.input_global_scale",
        "model.norm.weight",
    ],
)
def test_a_missing_tensor_is_an_error_that_names_it(mixed: Path, tmp_path: Path, name: str) -> None:
    folder = change(mixed, tmp_path / "broken", lambda tensors: tensors.__delitem__(name))
    with pytest.raises(ModelError, match="1 missing keys") as caught:
        load(folder)
    assert name in str(caught.value)
    assert str(folder) in str(caught.value)


def test_an_unexpected_tensor_is_an_error_that_names_it(mixed: Path, tmp_path: Path) -> None:
    extra = {"model.layers.0.mlp.up_proj.weight_zero_point": torch.zeros(1)}
    folder = change(mixed, tmp_path / "broken", lambda tensors: tensors.update(extra))
    with pytest.raises(ModelError, match=r"unexpected keys: model\.layers\.0\.mlp\.up_proj\.weight_zero_point"):
        load(folder)


def test_a_tensor_of_another_shape_is_an_error_that_names_it(source: Path, tmp_path: Path) -> None:
    folder = change(source, tmp_path / "broken", lambda tensors: tensors.update({"model.norm.weight": torch.ones(32)}))
    with pytest.raises(ModelError, match=r"1 mismatched keys: model\.norm\.weight"):
        load(folder)


def test_a_folder_that_loads_but_cannot_run_is_an_error(mixed: Path, tmp_path: Path) -> None:
    folder = change(mixed, tmp_path / "broken", lambda tensors: None)
    config = json.loads((folder / "config.json").read_text())
    for group in config["quantization_config"]["config_groups"].values():
        if group["format"] == "float-quantized":  # groups of 128 columns do not fit into the 64 of this model
            group["input_activations"] |= {"strategy": "group", "group_size": 128}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="loads it, but cannot run it"):
        load(folder)


def test_a_missing_compressed_tensors_is_named(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.quantizers.quantizer_compressed_tensors.is_compressed_tensors_available", bool)
    with pytest.raises(MissingExtraError, match=r"compressed.tensors.*prismaquant-cpp\[eval\]"):
        load(mixed)


def test_another_vocabulary_is_refused(source: Path, data: Path, tmp_path: Path) -> None:
    other = build("llama", tmp_path / "other", vocab_size=320)
    with pytest.raises(ModelError, match="vocabulary of 320, its source one of 256"):
        measure(other, source, data)


def test_logits_that_are_not_finite_are_refused(source: Path, data: Path, tmp_path: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"][0, 0] = torch.inf

    with pytest.raises(ModelError, match="not finite"):
        measure(change(source, tmp_path / "broken", edit), source, data)


def test_a_truncated_shard_and_a_missing_folder_are_refused(source: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(source, folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate((folder / "model.safetensors").stat().st_size - 10)
    with pytest.raises(ModelError, match="truncated"):
        measure(folder, source, data)
    with pytest.raises(ModelError, match="no readable config"):
        measure(tmp_path / "nowhere", source, data)


def test_code_inside_the_folder_is_never_run(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "custom", "auto_map": {"AutoConfig": "m.C", "AutoModelForCausalLM": "m.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "m.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match="transformers cannot load it"):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("tokens", "seq_len"), [(31, 16), (64, 1), (0, 16)])
def test_too_few_tokens_are_refused(source: Path, data: Path, tokens: int, seq_len: int) -> None:
    with pytest.raises(ArgumentError, match="at least two windows"):
        evaluate(source, source=source, data=data, tokens=tokens, seq_len=seq_len)


def test_the_fingerprint_is_that_of_the_model_and_sees_the_codes(source: Path, mixed: Path, tmp_path: Path) -> None:
    assert folder_fingerprint(source) == open_model(source).fingerprint

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight_packed"] ^= 1

    assert folder_fingerprint(change(mixed, tmp_path / "changed", edit)) != folder_fingerprint(mixed)
