"""Vision towers, measured on prompts with images by the loss of the language model behind them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoTokenizer, Gemma3ImageProcessorPil, Gemma3Processor

import prismaquant as pq
from prismaquant.calibration import Draw, deal, probe
from prismaquant.calibration.towers import SampleDraw
from prismaquant.codec import get_codec
from prismaquant.errors import ArgumentError, DataError, ModelError, StageFileError
from prismaquant.files.manifest import read as read_manifest
from prismaquant.model import Model, Unit, open_model
from prismaquant.model.kept import NO_LAYER
from prismaquant.model.towers import with_towers
from prismaquant.rendering.render import render
from prismaquant.streaming import Samples, read_samples, walk
from prismaquant.streaming.forward import Forward
from prismaquant.streaming.model_class import model_class, read_config
from prismaquant.streaming.skeleton import Skeleton
from support.hostile import edit_config
from support.samples import image_samples
from support.tiny_models import MULTIMODAL, build

FORMAT = "fp8_e4m3_channel"
SMALL = {"samples": 4, "price_samples": 4, "seq_len": 32, "threads": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: build(kind, tmp_path_factory.mktemp("models") / kind, tokenizer=True) for kind in MULTIMODAL}


def loaded(folder: Path) -> torch.nn.Module:
    return model_class(read_config(folder)).from_pretrained(folder, dtype=torch.float32, experts_implementation="eager")


def units_of(model: Model) -> list[Unit]:
    return [unit for unit in model.units if unit.layer == NO_LAYER]


@pytest.mark.parametrize("kind", MULTIMODAL)
def test_layer_by_layer_gives_the_logits_of_the_whole_model(folders: dict[str, Path], kind: str) -> None:
    model = with_towers(open_model(folders[kind]))
    whole = loaded(folders[kind])
    skeleton = Skeleton(model)
    forward = Forward(skeleton)
    for inputs in image_samples(folders[kind], 2):
        (batch,) = Samples(read_samples(inputs, model)).batches(0, 0, 1)
        with torch.no_grad():
            with skeleton.filled((*skeleton.embedding, *skeleton.rest, *skeleton.towers)):
                entered = forward.enter(batch)
            hidden = entered.pop(0)
            for layer, names in enumerate(skeleton.layer_tensors):
                with skeleton.filled(names):
                    hidden = forward.layer(layer, hidden + entered.pop(layer, 0.0), batch)
            with skeleton.filled((*skeleton.head, *skeleton.rest)):
                logits = skeleton.causal.get_output_embeddings()(skeleton.decoder.norm(hidden))
            torch.testing.assert_close(logits, whole(**inputs).logits, rtol=1e-4, atol=1e-4)


def divergence(whole: torch.nn.Module, folder: Path, model: Model, unit: Unit, count: int) -> float:
    """Per counted token, of the whole model with ``unit`` in FP8."""
    samples = image_samples(folder, count)
    codec = get_codec(FORMAT)
    rendering = render(model, unit, FORMAT, preset="rtn")
    counted = [sample.counted[0] for sample in read_samples(samples, model)]

    def predictions() -> torch.Tensor:
        with torch.no_grad():
            logits = [whole(**inputs).logits[0][tokens] for inputs, tokens in zip(samples, counted, strict=True)]
        return torch.cat(logits).double().log_softmax(-1)

    source = predictions()
    for linear in unit.linears:
        weight = whole.get_submodule(model.architecture.module_name(linear.name)).weight
        weight.data = torch.from_numpy(codec.decode(rendering.quantized[linear.name]))
    changed = predictions()
    for linear in unit.linears:
        weight = whole.get_submodule(model.architecture.module_name(linear.name)).weight
        weight.data = torch.from_numpy(model.read_weight(linear))
    return float((source.exp() * (source - changed)).sum(-1).mean())


@pytest.mark.parametrize("kind", MULTIMODAL)
def test_prices_predict_the_divergence_of_the_language_model(folders: dict[str, Path], kind: str) -> None:
    folder, count = folders[kind], 8
    source = open_model(folder)
    model = with_towers(source)
    samples = read_samples(image_samples(folder, count), source)
    towers = SampleDraw(model, samples[:1], (), samples)
    ids = np.random.default_rng(0).integers(7, 200, size=(2, 8))
    draw = Draw(ids[:1], ids[:0], ids[1:])
    measured = probe(source, draw, schemes=["FP8A16"], preset="rtn", price_probes=64, towers=towers)
    found = {unit.name: unit.candidates[0].prices["directional"] for unit in measured.units if unit.tower}
    assert found.keys() == {unit.name for unit in units_of(model)}
    whole = loaded(folder)
    for unit in units_of(model):
        expected = divergence(whole, folder, model, unit, count)
        # Other experts are chosen in some layers behind the last Linear of this one: no derivative sees that.
        if kind != "qwen3_5_moe" or not unit.name.endswith("merger.linear_fc2"):
            assert found[unit.name] == pytest.approx(expected, rel=0.3), unit.name


def test_where_an_image_comes_next_no_prediction_counts(folders: dict[str, Path]) -> None:
    model = with_towers(open_model(folders["qwen3_vl"]))
    (sample,) = read_samples(image_samples(folders["qwen3_vl"], 1), model)
    (first, *_) = np.flatnonzero(sample.ids[0] == 5)
    assert sample.counted[0, first - 2]
    assert not sample.counted[0, first - 1 : first + 3].any()
    assert sample.counted[0, first + 3]
    assert sample.counted.sum() == 24


def test_towers_do_not_change_what_layers_see(folders: dict[str, Path]) -> None:
    """The same gradients reach the layers whether the towers are visited or not."""
    source = open_model(folders["qwen3_vl"])
    samples = Samples(read_samples(image_samples(folders["qwen3_vl"], 2), source), 2)
    both = list(walk(with_towers(source), [samples]))
    assert [visit.layer for visit in both] == [1, 1, 0, 0, *[NO_LAYER] * 4]  # of towers one for each probe
    skipped = list(walk(with_towers(source), [samples], skip=[NO_LAYER]))
    for one, other in zip(both[:4], skipped, strict=True):
        assert all(torch.equal(one.linears[name].gradients, other.linears[name].gradients) for name in other.linears)


@pytest.fixture
def sample_folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    for number, inputs in enumerate(image_samples(folders["qwen3_vl"], 16)):
        save_file(inputs, folder / f"{number:02}.safetensors")
    return folder


def test_quantized_in_one_go(folders: dict[str, Path], sample_folder: Path, tmp_path: Path) -> None:
    folder = folders["qwen3_vl"]
    settings = {"bpw": 6.0, "work_dir": tmp_path / "work", "tower_data": [sample_folder], **SMALL}
    report = pq.quantize(folder, tmp_path / "out", **settings)
    assert report.verify.ok
    units = {unit.name: unit for unit in report.plan.units if unit.name.startswith("model.visual.")}
    assert {"model.visual.blocks.0.attn.qkv", "model.visual.deepstack_merger_list.0.linear_fc1"} < units.keys()
    assert all(unit.price is not None for unit in units.values())
    (note,) = (note for note in report.plan.notes if note.code == "tower-loss")
    assert note.text.startswith(f"{sum(unit.price for unit in units.values()):.3g} nats")
    written = {record.name: record.scheme for record in read_manifest(tmp_path / "out" / "prismaquant.json").linears}
    assert {name: written[name] for name in units} == {name: unit.scheme for name, unit in units.items()}
    assert {scheme for name, scheme in written.items() if name in units} - {"BF16"}
    again = pq.quantize(folder, tmp_path / "again", **settings)
    assert again.plan == report.plan
    assert (tmp_path / "again" / "SHA256SUMS").read_bytes() == (tmp_path / "out" / "SHA256SUMS").read_bytes()


def test_verbs_one_by_one(folders: dict[str, Path], sample_folder: Path, tmp_path: Path) -> None:
    folder, work, file = folders["qwen3_vl"], tmp_path / "work", tmp_path / "sensitivity.safetensors"
    menu = ("NVFP4", "FP8_DYNAMIC", "BF16")
    settings = {"out": file, "work_dir": work, "tower_data": sample_folder, "schemes": menu, **SMALL}
    measured = pq.probe(folder, **settings)
    towers = {unit.name: unit for unit in measured.units if unit.tower}
    assert measured.tower_price_samples == 4
    assert measured.tower_price_tokens == 4 * 24
    assert measured.tower_tokens == 11 * 24  # and one sample for the ranges of inputs
    assert all(unit.input_global_scale is not None for unit in towers.values())
    assert measured.price_sums["model.visual.merger.linear_fc1/directional"].shape == (3, 4)
    assert pq.probe(folder, **settings) == measured
    more = pq.probe(folder, **{**settings, "schemes": (*menu, "FP8A16")})
    assert [unit.name for unit in more.units] == [unit.name for unit in measured.units]
    assert {each.scheme for each in more.units[-1].candidates} == {*menu, "FP8A16"}
    with pytest.raises(StageFileError, match="another tower_data"):
        pq.probe(folder, **{**settings, "tower_data": None, "work_dir": None})
    pins = ["model.visual.merger.linear_fc2=NVFP4"]  # its inputs were seen
    plan = pq.plan(folder, measured, bpw=7.0, pins=pins)
    assert next(unit.scheme for unit in plan.units if unit.name == "model.visual.merger.linear_fc2") == "NVFP4"
    with pytest.raises(ArgumentError, match="NVFP4 stores the range of the inputs, which nobody has seen"):
        pq.plan(folder, replace(measured, units=measured.units[: -len(towers)]), bpw=7.0, pins=pins)
    assert pq.frontier(folder, measured, points=3).vertices
    assert pq.explain(folder, plan, measured, unit="model.visual.merger.linear_fc1").units[0].agreement is not None
    polished = pq.polish(folder, plan, tmp_path / "polished", sensitivity=measured, work_dir=work)
    assert not towers.keys() & {unit.name for unit in polished.units}
    renderings = tmp_path / "polished"
    out = pq.export(folder, plan, tmp_path / "out", sensitivity=measured, work_dir=work, renderings=renderings).path
    assert pq.verify(out, source=folder).ok


def test_finished_towers_are_not_measured_again(folders: dict[str, Path], tmp_path: Path) -> None:
    source = open_model(folders["qwen3_vl"])
    samples = read_samples(image_samples(folders["qwen3_vl"], 4), source)
    towers = deal(with_towers(source), samples, preview=False, seed=0)
    ids = np.random.default_rng(0).integers(7, 200, size=(2, 16))
    found, stages = [], []
    for _ in range(2):
        stages.append(set())
        found.append(
            probe(
                source, Draw(ids[:1], ids[:0], ids[1:]), schemes=["NVFP4", "BF16"], preset="rtn", price_probes=2,
                towers=towers, journal=tmp_path, progress=lambda event: stages[-1].add(event.stage),
            )
        )  # fmt: skip
    assert found[0] == found[1]
    assert found[0].price_sums.keys() == found[1].price_sums.keys()
    assert "towers" in stages[0]
    assert stages[1] == set()


def test_units_that_no_sample_reaches_stay_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = build("qwen3_vl", tmp_path / "model", tokenizer=True, vision={"deepstack_visual_indexes": [0, 7]})
    samples = image_samples(folder, 4)
    with caplog.at_level("INFO", logger="prismaquant"):
        measured = pq.probe(folder, tower_data=samples, **SMALL)
    names = [unit.name for unit in measured.units if unit.tower]
    assert "model.visual.deepstack_merger_list.0.linear_fc1" in names
    assert "model.visual.deepstack_merger_list.1.linear_fc1" not in names
    assert "deepstack_merger_list.1.linear_fc1: no sample reaches it" in caplog.text
    plan = pq.plan(folder, measured, bpw=8.0)
    assert {unit.name for unit in plan.units if unit.name.startswith("model.visual")} == set(names)


def test_no_scheme_is_chosen_that_a_reader_refuses(folders: dict[str, Path]) -> None:
    """SigLIP: transformers does not load 4 bits, vLLM does not quantize the MLP."""
    folder = folders["gemma3"]
    measured = pq.probe(folder, tower_data=image_samples(folder, 4), **SMALL)
    plan = pq.plan(folder, measured, bpw=6.0)
    schemes = {unit.name.rpartition(".")[2]: unit.scheme for unit in plan.units if "vision_tower" in unit.name}
    assert set(schemes) == {"qkv_proj", "out_proj", "fc1", "fc2"}
    assert schemes["fc1"] == schemes["fc2"] == "BF16"
    assert {schemes["qkv_proj"], schemes["out_proj"]} <= {"FP8_DYNAMIC", "FP8A16", "BF16"}


def test_what_a_tower_adds_behind_the_last_layer_is_refused(tmp_path: Path) -> None:
    """As Qwen3-VL does with more features than layers, which no published one has."""
    vision = {"depth": 2, "num_hidden_layers": 2, "deepstack_visual_indexes": [0, 1]}
    folder = build("qwen3_vl", tmp_path / "model", tokenizer=True, vision=vision)
    with pytest.raises(ModelError, match="does not get what the last layer returns"):
        pq.probe(folder, tower_data=image_samples(folder, 4), **SMALL)


def test_errors_of_towers_and_text_are_independent(folders: dict[str, Path]) -> None:
    measured = pq.probe(folders["gemma3"], tower_data=image_samples(folders["gemma3"], 8), **SMALL)
    schemes = {unit.name: "NVFP4" for unit in measured.units}
    towers = {unit.name: "NVFP4" for unit in measured.units if unit.tower}
    text = {name: scheme for name, scheme in schemes.items() if name not in towers}
    both, *parts = (measured.standard_error(each, "directional") for each in (schemes, towers, text))
    assert both == pytest.approx(np.hypot(*parts))
    sums = sum(measured.price_sums[f"{name}/directional"][0].astype(float) for name in towers)
    assert parts[0] == pytest.approx(sums.std(ddof=1) * np.sqrt(2) / measured.tower_price_tokens)


def with_processor(folder: Path) -> Path:
    """A Gemma 3 with the processor of one, as saved by transformers."""
    build("gemma3", folder, tokenizer=True, vocab_size=4100)
    names = {"boi_token": "<boi>", "image_token": "<image>", "eoi_token": "<eoi>"}
    tokenizer = AutoTokenizer.from_pretrained(folder, extra_special_tokens=names)
    tokenizer.add_special_tokens({"additional_special_tokens": list(names.values())})
    template = (
        "{% for m in messages %}{% for part in m.content %}"
        "{{ '<boi>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
    )
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4).save_pretrained(folder)
    edit_config(folder, image_token_id=tokenizer.convert_tokens_to_ids("<image>"))
    return folder


def write_messages(path: Path, count: int = 4, image: str = "images/{}.png") -> Path:
    lines = [
        {
            "role": "user",
            "content": [{"type": "image", "path": image.format(i)}, {"type": "text", "text": f"It is {i}."}],
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps({"messages": [line]}) + "\n" for line in lines))
    return path


def test_the_processor_of_the_folder_makes_samples_of_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_processor(tmp_path / "model")
    (tmp_path / "data" / "images").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, size=(4, 40, 30, 3), dtype=np.uint8)
    for number, values in enumerate(pixels):
        Image.fromarray(values).save(tmp_path / "data" / "images" / f"{number}.png")
    data = write_messages(tmp_path / "data" / "messages.jsonl")
    monkeypatch.chdir(tmp_path / "data" / "images")  # paths are relative to the file
    samples = read_samples(data, open_model(folder))
    assert [sample.inputs["pixel_values"].shape for sample in samples] == [(1, 3, 56, 56)] * 4
    assert all((sample.ids == 4097).sum() == 4 for sample in samples)
    assert len({sample.fingerprint for sample in samples}) == 4
    measured = pq.probe(folder, tower_data=data, **SMALL)
    assert any(unit.tower for unit in measured.units)
    for image, message in (("images/none{}.png", "there is no file"), ("https://a.org/{}.png", "not on this machine")):
        with pytest.raises(DataError, match=rf"messages.jsonl:1: .*{message}"):
            read_samples(write_messages(data, image=image), open_model(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": None}, "has no input_ids"),
        ({"input_ids": torch.ones(2, 4, dtype=torch.int64)}, r"has input_ids \[2, 4\] of torch.int64"),
        ({"input_ids": torch.full((1, 4), 4096)}, "token id 4096 at position"),
        ({"attention_mask": torch.tensor([[0, 1]])}, "attention_mask has zeros"),
        ({"pixel_values": None}, "has nothing but text"),
        ({"pixel_values": torch.full((16, 1176), torch.nan)}, "has NaN or infinity"),
        ({"image_grid_thw": torch.tensor([[1, 2, 2]])}, r"sample [01]: Qwen3VL\w+ cannot take it"),
    ],
)
def test_samples_that_cannot_be_used(folders: dict[str, Path], change: dict[str, object], message: str) -> None:
    broken = [{**inputs, **change} for inputs in image_samples(folders["qwen3_vl"], 2)]
    broken = [{name: value for name, value in inputs.items() if value is not None} for inputs in broken]
    with pytest.raises(DataError, match=message):
        pq.probe(folders["qwen3_vl"], tower_data=broken, **SMALL)


def test_the_file_of_a_sample_that_cannot_be_used_is_named(folders: dict[str, Path], sample_folder: Path) -> None:
    broken = {**image_samples(folders["qwen3_vl"], 1)[0], "image_grid_thw": torch.tensor([[1, 2, 2]])}
    save_file(broken, sample_folder / "07.safetensors")
    with pytest.raises(DataError, match=r"samples/07\.safetensors: Qwen3VL\w+ cannot take it"):
        pq.probe(folders["qwen3_vl"], tower_data=sample_folder, **SMALL)


def test_three_samples_are_enough_for_errors(folders: dict[str, Path]) -> None:
    measured = pq.probe(folders["qwen3_vl"], tower_data=image_samples(folders["qwen3_vl"], 3), **SMALL)
    assert measured.tower_price_samples == 2
    assert measured.standard_error({unit.name: "NVFP4" for unit in measured.units}, "directional") is not None


def test_refused_before_any_work(folders: dict[str, Path], tmp_path: Path) -> None:
    folder, samples = folders["qwen3_vl"], image_samples(folders["qwen3_vl"], 2)
    with pytest.raises(ArgumentError, match="has no tower"):
        pq.probe(build("llama", tmp_path / "llama", tokenizer=True), tower_data=samples, **SMALL)
    with pytest.raises(ArgumentError, match="measured is of the model on text"):
        pq.probe(folder, tower_data=samples, prices=["measured"], work_dir=tmp_path / "work", **SMALL)
    with pytest.raises(DataError, match="has 1 samples, at least 2 are needed"):
        pq.probe(folder, tower_data=samples[:1], **SMALL)
    (tmp_path / "empty").mkdir()
    for name, message in (("none", "no such file"), ("empty", "is a folder without"), ("a.png", "suffix '.png'")):
        if name == "a.png":
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError, match=message):
            pq.probe(folder, tower_data=tmp_path / name, **SMALL)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="is not a safetensors file"):
        pq.probe(folder, tower_data=[tmp_path / "broken.safetensors"], **SMALL)
    with pytest.raises(ModelError, match="processor"):
        pq.probe(folders["gemma3"], tower_data=write_messages(tmp_path / "a.jsonl"), **SMALL)
