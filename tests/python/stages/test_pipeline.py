"""The verbs in a row: what is measured once is used again, and the numbers of all stages agree."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import prismaquant as pq
from prismaquant.errors import ArgumentError, BudgetError, MissingExtraError, ModelError, RefusedError, StageFileError
from prismaquant.files import manifest, plan, sensitivity
from prismaquant.progress import Event
from support import tiny_models

EXAMPLES = Path(__file__).parents[3] / "examples" / "data"
CALIBRATION = EXAMPLES / "calibration.txt"
HELD_OUT = EXAMPLES / "evaluation.txt"
FEW: dict[str, Any] = {"data": CALIBRATION, "samples": 4, "price_samples": 4, "seq_len": 32}
MEASURED = {"forward", "head", "backward", "price"}


class Stages(set[str]):
    """A progress sink: the stages that did something."""

    def __call__(self, event: Event) -> None:
        self.add(event.stage)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build("llama", tmp_path_factory.mktemp("pipeline") / "source", tokenizer=True)


@pytest.fixture(scope="module")
def first(source: Path) -> pq.pipeline.QuantizeReport:
    """A mixed build. Neither it nor its work folder is to be changed."""
    return pq.quantize(source, source.with_name("first"), bpw=10, **FEW)


@pytest.fixture
def work(first: Any, tmp_path: Path) -> Path:
    """A copy of its work folder."""
    return Path(shutil.copytree(first.work_dir, tmp_path / "work"))


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_numbers_of_all_stages_agree(first, source):
    decided, written = first.plan, first.export.manifest
    assert written.plan == decided == manifest.read(first.export.path / manifest.FILE).plan
    assert {unit.scheme for unit in decided.units} == {"FP8_DYNAMIC", "BF16"}
    assert decided.bytes == sum(unit.bytes for unit in decided.units) == sum(each.bytes for each in written.linears)
    assert decided.bytes <= decided.budget == int(10 * decided.parameters / 8)
    assert decided.predicted_kl == pytest.approx(sum(unit.price for unit in decided.units), rel=1e-12)
    assert decided.lower_bound == decided.predicted_kl

    stored = {}
    for shard in first.export.path.glob("*.safetensors"):
        with safe_open(shard, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                width = {"BF16": 2, "F32": 4}.get(part.get_dtype(), 1)
                stored[name] = width * int(np.prod(part.get_shape()))
    assert sum(stored.values()) == written.tensor_bytes
    for linear in written.linears:
        assert linear.bytes == sum(size for name, size in stored.items() if name.startswith(f"{linear.name}."))

    recorded = {linear.name: linear.squared_error for linear in written.linears}
    for check in first.verify.linears:
        assert check.squared_error == recorded[check.name]
        assert check.equals_manifest is True
    assert len(first.verify.linears) == len(recorded) == 14

    measured = sensitivity.read(first.work_dir / "sensitivity.safetensors")
    assert measured.model == decided.model == pq.open(source).fingerprint
    errors = {(unit.name, each.scheme): each.squared_error for unit in measured.units for each in unit.candidates}
    assert written.polish is not None
    polished = {unit.name for unit in written.polish.units if unit.polished and written.polish.accepted}
    for unit in decided.units:  # what was priced is what was written, but where the polish has bettered it
        assert unit.name in polished or errors[unit.name, unit.scheme] == pytest.approx(
            sum(recorded[name] for name in unit.linears), rel=1e-12
        )
    assert "verified: True" in repr(first)


def test_the_kl_divergence_is_near_what_was_predicted(first, source):
    measured = pq.evaluate(first.export.path, source=pq.open(source), data=HELD_OUT, tokens=512, seq_len=32)
    assert 0 < measured.kl.low <= measured.kl.value <= measured.kl.high < 1
    assert 1 / 2 < measured.kl.value / first.plan.predicted_kl < 2


def test_a_second_budget_measures_nothing(source, work, tmp_path):
    def files() -> dict[Path, tuple[int, bytes]]:
        found = (path for path in work.rglob("*") if path.is_file() and "polish" not in path.relative_to(work).parts)
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}

    before = files()
    stages = Stages()
    report = pq.quantize(source, tmp_path / "out", bpw=9, work_dir=work, progress=stages, **FEW)
    assert stages == {"polish", "export", "verify"}
    assert report.plan.bpw == pytest.approx(9, abs=0.5)
    assert files() == before


def test_used_stage_files_give_the_bytes_of_new_ones(first, source, work, tmp_path):
    pq.quantize(source, tmp_path / "used", bpw=10, work_dir=work, **FEW)
    assert folder_bytes(tmp_path / "used") == folder_bytes(first.export.path)
    shutil.rmtree(work / "renderings")
    pq.quantize(source, tmp_path / "rendered", bpw=10, work_dir=work, **FEW)
    assert folder_bytes(tmp_path / "rendered") == folder_bytes(first.export.path)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"samples": 3},
        {"price_samples": 3},
        {"price_probes": 2},
        {"seq_len": 16},
        {"data": HELD_OUT},
        {"probes": 2},
        {"preset": "rtn"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_are_refused_until_told_to_restart(change, source, work):
    stages = Stages()
    path = work / "sensitivity.safetensors"
    before = sensitivity.read(path)
    menu = ("NVFP4A16", "FP8_DYNAMIC", "BF16")
    arguments = {**FEW, **change, "out": path, "schemes": menu, "work_dir": work, "progress": stages}
    files = {each: each.read_bytes() for each in work.rglob("*") if each.is_file()}
    with pytest.raises(StageFileError, match="--restart"):
        pq.probe(source, **arguments)
    assert not stages
    assert {each: each.read_bytes() for each in work.rglob("*") if each.is_file()} == files
    found = pq.probe(source, **arguments, restart=True)
    assert stages == MEASURED
    assert found != before
    assert sensitivity.read(path) == found
    for name, value in change.items():
        assert name in ("data", "samples", "price_samples") or getattr(found, name) == value


def test_another_seed_measures_again_even_on_the_same_windows(source, tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(112).reshape(7, 16))
    for seed, restart, expected in ((0, False, MEASURED), (0, False, set()), (1, True, MEASURED)):
        stages = Stages()
        arguments = {
            "samples": 4,
            "price_samples": 2,
            "seq_len": 16,
            "seed": seed,
            "restart": restart,
            "out": tmp_path / "out",
            "progress": stages,
        }
        pq.probe(source, tmp_path / "ids.npy", **arguments)
        assert stages == expected


def test_a_new_scheme_measures_again_and_then_both_menus_are_there(source, tmp_path):
    path = tmp_path / "sensitivity.safetensors"

    def stages_of(*schemes: str) -> set[str]:
        stages = Stages()
        pq.probe(source, **FEW, out=path, schemes=schemes, work_dir=tmp_path, progress=stages)
        return stages

    assert stages_of("NVFP4A16", "FP8_DYNAMIC", "BF16") == MEASURED
    assert stages_of("FP8_DYNAMIC", "BF16") == set()
    assert stages_of("NVFP4", "FP8_DYNAMIC") == MEASURED
    assert stages_of("NVFP4A16", "BF16") == set()
    assert stages_of("NVFP4") == set()


def test_a_scheme_that_no_shape_allows_is_not_measured_for_ever(tmp_path):
    odd = {"hidden_size": 68, "intermediate_size": 136, "head_dim": 34}
    model = tiny_models.build("llama", tmp_path / "odd", tokenizer=True, **odd)
    out = tmp_path / "sensitivity.safetensors"
    found = pq.probe(model, **FEW, out=out)
    assert {each.scheme for unit in found.units for each in unit.candidates} == {"FP8_DYNAMIC", "FP8A16", "BF16"}
    stages = Stages()
    assert pq.probe(model, **FEW, out=out, progress=stages) == found
    assert stages == set()


def test_stage_files_of_another_model_are_refused_until_told_to_restart(first, source, work, tmp_path):
    other = tiny_models.build("llama", tmp_path / "other", tokenizer=True, seed=1)
    stages = Stages()
    with pytest.raises(StageFileError, match="holds stage files of another model"):
        pq.quantize(other, tmp_path / "out", bpw=10, work_dir=work, **FEW)
    with pytest.raises(StageFileError, match="another model"):
        pq.probe(other, **FEW, out=work / "sensitivity.safetensors")
    report = pq.quantize(other, tmp_path / "out", bpw=10, work_dir=work, restart=True, progress=stages, **FEW)
    assert stages > MEASURED
    assert report.plan.model == sensitivity.read(work / "sensitivity.safetensors").model != first.plan.model
    assert report.verify.ok


@pytest.mark.parametrize("restart", [False, True])
def test_a_file_of_something_else_is_refused_not_replaced(restart, source, tmp_path):
    path = tmp_path / "model.safetensors"
    shutil.copyfile(next(source.glob("*.safetensors")), path)
    before = path.read_bytes()
    with pytest.raises(StageFileError, match=r"model\.safetensors: has no schema id"):
        pq.probe(source, **FEW, out=path, restart=restart)
    assert path.read_bytes() == before


def test_uniform_needs_no_data_and_no_work_folder(source, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # nor any extra
    report = pq.quantize(source, tmp_path / "out", schemes="FP8_DYNAMIC")
    assert {unit.scheme for unit in report.plan.units} == {"FP8_DYNAMIC"}
    assert (report.plan.predicted_kl, report.plan.budget, report.work_dir) == (None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("settings", [{"bpw": 6}, {"schemes": ["NVFP4A16"], "preset": "fast"}])
def test_where_data_is_needed_and_none_is_named_the_built_in_text_serves(source, tmp_path, settings, caplog):
    with caplog.at_level("INFO", logger="prismaquant"):
        report = pq.quantize(source, tmp_path / "out", **settings, **{**FEW, "data": None})
    assert caplog.messages[:2] == [
        "data: no text was named, the built-in one is used; text like what the model will read is better",
        "data: 9 windows of 32 tokens (9 of default)",
    ]
    assert report.plan.preset == settings.get("preset", "best")


def test_uniform_shares_the_renderings_of_a_work_folder(first, source, work, tmp_path):
    report = pq.quantize(source, tmp_path / "out", schemes=["NVFP4A16"], work_dir=work)
    assert report.work_dir == work
    shutil.rmtree(work)
    pq.quantize(source, tmp_path / "new", schemes=["NVFP4A16"], work_dir=work)
    assert folder_bytes(tmp_path / "new") == folder_bytes(tmp_path / "out")
    assert len(list(work.rglob("*.nvfp4.safetensors"))) == 8


def test_quantized_activations_on_request(source, work, tmp_path):
    report = pq.quantize(source, tmp_path / "out", schemes=["NVFP4"], work_dir=work, **FEW)
    assert report.verify.ok
    assert report.plan.predicted_kl > 0
    (shard,) = report.export.path.glob("*.safetensors")
    with safe_open(shard, framework="numpy") as file:
        scales = {name: file.get_tensor(name) for name in file.keys() if name.endswith(".input_global_scale")}  # noqa: SIM118
    chosen = {
        linear.name: unit.input_global_scale
        for unit in sensitivity.read(work / "sensitivity.safetensors").units
        for linear in unit.linears
    }
    assert {name.rpartition(".")[0] for name in scales} == set(chosen)
    for name, scale in scales.items():
        assert scale.item() == np.float32(chosen[name.rpartition(".")[0]])
    measured = pq.evaluate(report.export.path, source=source, data=HELD_OUT, tokens=128, seq_len=32)
    assert 0 < measured.kl.value < 10


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"bpw": 3}, BudgetError),
        ({"bpw": 17}, BudgetError),
        ({"size": "1MB"}, BudgetError),
        ({"bpw": 5, "price": "fair"}, ArgumentError),
        ({"bpw": 5, "shard_size": "large"}, ArgumentError),
        ({"bpw": 5, "size": 10**9}, ArgumentError),
        ({"bpw": 5, "threads": 0}, ArgumentError),
        ({"bpw": 5, "data": "none.txt"}, RefusedError),
        ({"bpw": 5, "out": "exists"}, RefusedError),
        ({"bpw": 5, "out": "source"}, RefusedError),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(arguments, error, source, tmp_path):
    (tmp_path / "exists").mkdir()
    outs = {"exists": tmp_path / "exists", "source": source}
    out = outs.get(arguments.get("out"), tmp_path / "out")
    stages = Stages()
    with pytest.raises(error):
        pq.quantize(source, **{**FEW, **arguments, "out": out}, progress=stages)
    assert stages == set()
    assert [path.name for path in tmp_path.iterdir()] == ["exists"]
    assert not source.with_name("source.work").exists()


def test_missing_extras(source, first, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name))
    probing = pytest.raises(
        MissingExtraError, match=r"transformers is not installed; pip install .prismaquant-cpp\[probe\]"
    )
    with probing:
        pq.probe(source, **FEW, out=tmp_path / "new" / "file")
    with probing:
        pq.quantize(source, tmp_path / "out", bpw=5, **FEW)
    with pytest.raises(MissingExtraError, match=r"prismaquant-cpp\[eval\]"):
        pq.evaluate(first.export.path, source=source, data=HELD_OUT, out=tmp_path / "new" / "file")
    assert not list(tmp_path.iterdir())


def test_stages_by_hand_from_files_and_from_objects(first, source, work, tmp_path):
    model = pq.open(source)
    assert pq.open(model) is model
    measured = first.work_dir / "sensitivity.safetensors"
    decided = pq.plan(source, measured, bpw=10, out=tmp_path / "recipe.json")
    assert decided == pq.plan(model, sensitivity.read(measured), bpw=10) == first.plan
    assert plan.read(tmp_path / "recipe.json") == decided
    for plan_, folder in ((tmp_path / "recipe.json", "one"), (decided, "other")):
        pq.polish(source, plan_, tmp_path / folder, sensitivity=measured, work_dir=work)
    options = {"sensitivity": measured, "renderings": tmp_path / "one", "work_dir": work}
    from_files = pq.export(source, tmp_path / "recipe.json", tmp_path / "files", **options)
    options = {"renderings": tmp_path / "other", "work_dir": first.work_dir}
    from_objects = pq.export(model, decided, tmp_path / "objects", **options)
    assert from_files.manifest == from_objects.manifest == first.export.manifest
    assert folder_bytes(tmp_path / "files") == folder_bytes(tmp_path / "objects") == folder_bytes(first.export.path)
    assert pq.verify(str(tmp_path / "files"), source=model) == pq.verify(tmp_path / "files", source=str(source))


def test_without_the_work_folder_only_data_free_renderings_are_made_again(first, source, work, tmp_path):
    with pytest.raises(RefusedError, match=r"'best' is not at hand without a work folder; .*--work-dir"):
        pq.export(source, first.plan, tmp_path / "out")
    shutil.rmtree(work / "renderings")
    with pytest.raises(RefusedError, match=r"'best' is not in .*renderings"):
        pq.export(source, first.plan, tmp_path / "out", work_dir=work)
    assert not (tmp_path / "out").exists()
    measured = pq.probe(source, preset="scale_sweep", **FEW)
    swept = pq.plan(source, measured, bpw=10)
    assert (swept.preset, swept.calibration) == ("scale_sweep", None)
    kept = pq.probe(source, preset="scale_sweep", work_dir=tmp_path / "work", **FEW)
    assert kept == measured
    pq.export(source, swept, tmp_path / "again")
    pq.export(source, swept, tmp_path / "kept", work_dir=tmp_path / "work")
    assert folder_bytes(tmp_path / "again") == folder_bytes(tmp_path / "kept")


def test_calibration_text_makes_a_uniform_build_better(source, tmp_path):
    swept = pq.quantize(source, tmp_path / "swept", schemes=["NVFP4A16"])
    solved = pq.quantize(source, tmp_path / "solved", schemes=["NVFP4A16"], **FEW)
    assert (swept.plan.preset, solved.plan.preset) == ("scale_sweep", "best")
    assert solved.plan.calibration == sensitivity.read(solved.work_dir / "sensitivity.safetensors").calibration
    assert swept.plan.bytes == solved.plan.bytes
    measure = {"source": source, "data": CALIBRATION, "tokens": 512, "seq_len": 32}
    assert pq.evaluate(solved.export.path, **measure).kl.value < pq.evaluate(swept.export.path, **measure).kl.value
    with pytest.raises(ArgumentError, match="preset 'fast' solves for the inputs"):
        pq.plan(source, schemes=["NVFP4A16"], preset="fast")


def test_files_of_another_model_are_named(first, tmp_path):
    other = tiny_models.build("llama", tmp_path / "other", seed=1)
    measured = first.work_dir / "sensitivity.safetensors"
    with pytest.raises(
        StageFileError, match=r"sensitivity\.safetensors: was made for another model .*; probe this model"
    ):
        pq.plan(other, measured, bpw=5)
    plan.write(tmp_path / "first.json", first.plan)
    with pytest.raises(StageFileError, match=r"first\.json: was made for another model .*; plan again"):
        pq.export(other, tmp_path / "first.json", tmp_path / "out")


def test_the_work_folder_is_beside_the_output_however_that_is_written(source, work, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(work, tmp_path / "here.work")
    report = pq.quantize(source, ".", bpw=10, force=True, **FEW)
    assert report.work_dir == tmp_path / "here.work"
    assert pq.verify(tmp_path / "here").ok


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="none: does not exist"):
        pq.verify(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError, match="file: is not a folder"):
        pq.verify(tmp_path / "file")
