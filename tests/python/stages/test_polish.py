"""The polish lowers what is measured, keeps what it cannot better, and survives a kill."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import prismaquant as pq
from prismaquant.calibration.polish import head
from prismaquant.calibration.polish.unit import mean_error
from prismaquant.errors import ArgumentError, RefusedError, StageFileError
from prismaquant.files import manifest
from prismaquant.progress import Event
from prismaquant.rendering.cache import polished_cache
from prismaquant.rendering.grams import OutputGram
from support import tiny_models

run_module = importlib.import_module("prismaquant.calibration.polish.run")

CALIBRATION = Path(__file__).parents[3] / "examples" / "data" / "calibration.txt"
MENU = ("NVFP4", "FP8_DYNAMIC", "BF16")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build("llama", tmp_path_factory.mktemp("polish") / "source", tokenizer=True)


@pytest.fixture(scope="module")
def probed(source: Path) -> Path:
    """The work folder of a probe, with its sensitivity."""
    work = source.with_name("work")
    few = {"samples": 16, "price_samples": 8, "seq_len": 64}
    pq.probe(source, CALIBRATION, out=work / "sensitivity", schemes=(*MENU, "NVFP4A16"), work_dir=work, **few)
    return work


@pytest.fixture(scope="module")
def plan(source: Path, probed: Path) -> pq.Plan:
    return pq.plan(source, probed / "sensitivity", bpw=6, schemes=("NVFP4A16", "FP8_DYNAMIC", "BF16"))


@pytest.fixture(scope="module")
def polished(source: Path, probed: Path, plan: pq.Plan) -> Path:
    """The folder of a finished polish. Not to be changed."""
    out = source.with_name("polished")
    pq.polish(source, plan, out, sensitivity=probed / "sensitivity", work_dir=probed)
    return out


def polish(source: Path, plan: pq.Plan, out: Path, probed: Path, **options: Any) -> Any:
    return pq.polish(source, plan, out, sensitivity=probed / "sensitivity", work_dir=probed, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_lowers_the_measured_divergence(source, probed, plan, polished):
    report = polish(source, plan, polished, probed)  # read, not made again
    assert report.accepted
    assert 0 < report.kl_after < report.kl_before
    assert report.predicted_kl == plan.predicted_kl
    assert report.plan == plan.fingerprint
    quantized = [unit for unit in plan.units if unit.scheme != "BF16"]
    assert [unit.name for unit in report.units] == [unit.name for unit in quantized]
    assert not report.units[0].polished  # nothing before it is quantized
    assert any(unit.polished for unit in report.units)
    for unit in report.units:
        assert unit.polished == (unit.error_after < unit.error_before)


def test_both_divergences_are_those_of_the_exported_folders(source, probed, plan, polished, tmp_path):
    windows = _windows(probed).prices
    np.save(tmp_path / "ids.npy", windows)
    report = polish(source, plan, polished, probed)
    for name, renderings, expected in (("before", None, report.kl_before), ("after", polished, report.kl_after)):
        out = tmp_path / name
        pq.export(source, plan, out, work_dir=probed, renderings=renderings)
        measured = pq.evaluate(
            out, source=source, data=tmp_path / "ids.npy", tokens=windows.size, seq_len=windows.shape[1]
        )
        # transformers runs in bfloat16, the polish in float32
        assert measured.kl.value == pytest.approx(expected, rel=0.15)


def test_the_manifest_says_it(source, probed, plan, polished, tmp_path):
    pq.export(source, plan, tmp_path / "out", work_dir=probed, renderings=polished)
    assert manifest.read(tmp_path / "out" / manifest.FILE).polish == polish(source, plan, polished, probed)
    pq.export(source, plan, tmp_path / "plain", work_dir=probed)
    assert manifest.read(tmp_path / "plain" / manifest.FILE).polish is None
    assert pq.verify(tmp_path / "out", source=source).ok


@pytest.mark.parametrize("done", [3, 6])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(done, source, probed, plan, polished, tmp_path, monkeypatch):
    def stop(event: Event) -> None:
        if (event.stage, event.done) == ("polish", done):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        polish(source, plan, tmp_path / "out", probed, progress=stop)
    solved = []
    render = run_module.render
    monkeypatch.setattr(run_module, "render", lambda *a, **k: solved.append(a[1].name) or render(*a, **k))
    polish(source, plan, tmp_path / "out", probed)
    assert 0 < len(solved) <= len(plan.units) - done
    assert content(tmp_path / "out") == content(polished)


def test_a_worse_rendering_is_not_taken(source, probed, plan, tmp_path, monkeypatch):
    render = run_module.render
    monkeypatch.setattr(run_module, "render", lambda *args, **kwargs: _spoilt(render(*args, **kwargs)))
    report = polish(source, plan, tmp_path / "out", probed)
    assert not any(unit.polished for unit in report.units)
    assert all(unit.error_after > unit.error_before for unit in report.units[1:])
    assert report.kl_after == report.kl_before
    assert not report.accepted


def test_a_whole_that_is_not_better_is_dropped(source, probed, plan, polished, tmp_path):
    shutil.copytree(polished, tmp_path / "polished")
    path = tmp_path / "polished" / "polish.json"
    path.write_text(path.read_text().replace('"accepted": true', '"accepted": false'))
    pq.export(source, plan, tmp_path / "out", work_dir=probed, renderings=tmp_path / "polished")
    pq.export(source, plan, tmp_path / "plain", work_dir=probed)
    found, expected = content(tmp_path / "out"), content(tmp_path / "plain")
    for name in ("prismaquant.json", "SHA256SUMS"):  # which say so
        assert found.pop(name) != expected.pop(name)
    assert found == expected


def test_another_plan_is_refused_or_discarded(source, probed, plan, polished, tmp_path):
    shutil.copytree(polished, tmp_path / "out")
    other = pq.plan(source, probed / "sensitivity", schemes=("FP8_DYNAMIC",))
    with pytest.raises(StageFileError, match=r"another plan.*--restart"):
        polish(source, other, tmp_path / "out", probed)
    assert content(tmp_path / "out") == content(polished)
    with pytest.raises(StageFileError, match="is of another plan"):
        pq.export(source, other, tmp_path / "folder", work_dir=probed, renderings=polished)
    assert polish(source, other, tmp_path / "out", probed, restart=True).plan == other.fingerprint


@pytest.mark.parametrize("part", ["", "renderings", "grams"])
def test_restart_discards_nothing_but_a_polish(part, source, probed, plan, polished, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(polished, mine)
    (mine / "thesis.txt").write_text("years")
    work = tmp_path / "work"
    shutil.copytree(probed, work)
    for folder in (mine, work / part):
        before = content(folder)
        with pytest.raises(StageFileError, match=r"holds what no polish wrote \(.*\); choose another folder"):
            polish(source, plan, folder, probed, restart=True)
        assert content(folder) == before
    (mine / "thesis.txt").unlink()
    (mine / ".polish.json.123.0badcafe").write_text("{")  # of a killed run
    assert polish(source, plan, mine, probed) == polish(source, plan, polished, probed)
    polish(source, plan, mine, probed, restart=True)
    assert content(mine) == content(polished)


def test_renderings_that_were_lost_are_made_again(source, probed, plan, polished, tmp_path):
    shutil.copytree(polished, tmp_path / "out")
    whole = sorted((tmp_path / "out").rglob("*.safetensors"))
    whole[1].unlink()
    whole[-1].write_bytes(whole[-1].read_bytes()[:-1])
    assert polish(source, plan, tmp_path / "out", probed) == polish(source, plan, polished, probed)
    assert content(tmp_path / "out") == content(polished)


def test_a_finished_polish_serves_a_plan_of_the_same_schemes(source, probed, plan, polished, tmp_path):
    shutil.copytree(polished, tmp_path / "out")
    found = polish(source, replace(plan, predicted_kl=0.5), tmp_path / "out", probed)
    assert found == replace(polish(source, plan, polished, probed), predicted_kl=0.5)


def test_a_wrong_work_folder_is_left_as_it_is(source, probed, plan, tmp_path):
    with pytest.raises(StageFileError, match="has no windows of a probe"):
        pq.polish(source, plan, tmp_path / "out", sensitivity=probed / "sensitivity", work_dir=tmp_path / "work")
    assert not any(tmp_path.iterdir())


def test_what_a_probe_must_have_kept(source, probed, plan, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(probed, work)
    shutil.rmtree(work / "grams")
    with pytest.raises(RefusedError, match="Grams of its output gradients were not kept"):
        polish(source, plan, tmp_path / "out", work)
    (work / "windows.safetensors").unlink()
    with pytest.raises(StageFileError, match="has no windows of a probe"):
        polish(source, plan, tmp_path / "out", work)
    with pytest.raises(ArgumentError, match="does not look at the inputs"):
        polish(source, replace(plan, preset="rtn", calibration=None), tmp_path / "out", probed)


def test_quantize_polishes(source, probed, tmp_path):
    arguments = {"bpw": 6, "data": CALIBRATION, "samples": 16, "price_samples": 8, "seq_len": 64}
    work = tmp_path / "work"
    shutil.copytree(probed, work)
    shutil.move(work / "sensitivity", work / "sensitivity.safetensors")
    plain = pq.quantize(source, tmp_path / "plain", schemes=MENU, polish=False, work_dir=work, **arguments)
    assert plain.export.manifest.polish is None
    assert not (work / "polish").exists()
    better = pq.quantize(source, tmp_path / "better", schemes=MENU, work_dir=work, **arguments)
    assert better.plan == plain.plan
    assert better.export.manifest.polish is not None
    assert better.verify.ok


@torch.no_grad()
def test_the_error_is_the_quadratic_form():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, 4, generator=generator) for _ in range(2))
    linear = torch.nn.Linear(4, 6, bias=False)
    weight, new = linear.weight.detach(), torch.randn(6, 4, generator=generator)
    root = torch.randn(6, 6, generator=generator)
    gram = root @ root.T
    error = y @ new.T - x @ weight.T
    for block in (6, 4):  # whole, and blocks of which the last is not full
        blocks = torch.zeros(6, block)
        kept = torch.zeros(6, 6)
        for start in range(0, 6, block):
            part = gram[start : start + block, start : start + block]
            blocks[start : start + len(part), : len(part)] = part
            kept[start : start + block, start : start + block] = part
        (found,) = mean_error([(x, y)], {"a": linear}, [{"a.weight": new}], {"a": OutputGram(blocks.numpy(), 7)})
        expected = sum(float(e @ kept @ e) for e in error) / (2 * 5 * 7)
        assert found == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [1e-3, 1e-1])
def test_small_divergences_keep_their_digits(size, monkeypatch):
    """The textbook sum in float32 has lost them; and equal builds are at exactly zero."""
    monkeypatch.setattr(head, "logits", lambda skeleton, hidden: hidden)
    monkeypatch.setattr(head, "_MAX_LOGITS", 4000)  # slices of four tokens
    generator = torch.Generator().manual_seed(0)
    source = 3 * torch.randn(30, 1000, generator=generator)
    build = source + size * torch.randn(30, 1000, generator=generator)
    found, zero = head.divergences(SimpleNamespace(vocabulary=1000), source, [build, source])
    log_p, log_q = (logits.double().log_softmax(-1) for logits in (source, build))
    assert found == pytest.approx(float((log_p.exp() * (log_p - log_q)).sum()), rel=1e-4)
    assert zero == 0


def _windows(probed: Path) -> Any:
    from prismaquant.calibration import Draw

    return Draw.read(probed / "windows.safetensors")


def _spoilt(rendering: Any) -> Any:
    """The same, with all codes of its first Linear zero."""
    name, quantized = next(iter(rendering.quantized.items()))
    zero = replace(quantized, codes=np.zeros_like(quantized.codes))
    return replace(rendering, quantized={**rendering.quantized, name: zero})


def test_the_folder_is_a_render_cache(plan, polished):
    assert polished_cache(polished, plan).folder.parent == polished
