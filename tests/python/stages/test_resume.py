"""A probe that was killed goes on with the next layer, and ends with the bytes of one that was not."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import prismaquant as pq
from prismaquant.calibration.memory import working_bytes
from prismaquant.errors import RefusedError
from prismaquant.progress import Event
from support import tiny_models

PROBE: dict[str, Any] = {"samples": 4, "price_samples": 4, "seq_len": 16, "price_probes": 2, "threads": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_models.build("llama", tmp_path_factory.mktemp("resume") / "source", num_hidden_layers=3)
    np.save(folder.with_name("ids.npy"), np.random.default_rng(0).integers(0, 64, (9, 16)))
    return folder


@pytest.fixture(scope="module")
def whole(source: Path) -> Path:
    """The folder with the result, and the work folder, of a probe that was not interrupted."""
    probe(source, source.with_name("whole"))
    return source.with_name("whole")


def probe(source: Path, folder: Path, **options: Any) -> Any:
    data, out = source.with_name("ids.npy"), folder / "sensitivity.safetensors"
    return pq.probe(source, data, out=out, work_dir=folder / "work", **{**PROBE, **options})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Die:
    """A progress sink that ends the process, as ``kill -9`` would, at one event."""

    def __init__(self, stage: str, done: int) -> None:
        self.stage, self.done = stage, done

    def __call__(self, event: Event) -> None:
        if (event.stage, event.done) == (self.stage, self.done):
            os._exit(9)


def killed(source: Path, folder: Path, stage: str, done: int, **options: Any) -> None:
    options["progress"] = Die(stage, done)
    process = multiprocessing.get_context("fork").Process(target=probe, args=(source, folder), kwargs=options)
    process.start()
    process.join(120)
    assert process.exitcode == 9


@pytest.mark.parametrize(
    ("stage", "done", "finished"),
    [("forward", 2, 0), ("head", 2, 0), ("backward", 6, 1), ("price", 8, 2), ("price", 12, 3)],
)
def test_the_bytes_are_those_of_an_uninterrupted_run(stage, done, finished, source, whole, tmp_path):
    killed(source, tmp_path, stage, done, max_memory=working_bytes(pq.open(source)))
    assert not (tmp_path / "sensitivity.safetensors").exists()
    assert finished == 3 or any((tmp_path / "work").rglob("*.f32"))  # states that waited on disk
    layers = []
    probe(source, tmp_path, progress=lambda event: layers.append(event.item) if event.stage == "price" else None)
    assert layers == ["layer 2", "layer 1", "layer 0"][finished:]
    assert content(tmp_path) == content(whole)


def test_a_layer_whose_renderings_are_gone_is_measured_again(source, whole, tmp_path):
    killed(source, tmp_path, "price", 8)
    next((tmp_path / "work" / "renderings").rglob("*layers.2.mlp.down_proj*")).unlink()
    next((tmp_path / "work" / "grams").rglob("*layers.1.mlp.down_proj*")).write_bytes(b"")
    layers = []
    probe(source, tmp_path, progress=lambda event: layers.append(event.item) if event.stage == "price" else None)
    assert layers == ["layer 2", "layer 1", "layer 0"]
    assert content(tmp_path) == content(whole)


def test_other_settings_do_not_go_on_from_it(source, tmp_path):
    killed(source, tmp_path, "price", 8)
    found = probe(source, tmp_path, price_probes=1)
    assert found.price_probes == 1
    shutil.rmtree(tmp_path / "work")
    assert probe(source, tmp_path, price_probes=1, restart=True) == found


def test_grams_are_kept(source, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    probe(source, tmp_path, keep_grams=True, restart=True)
    for part in (tmp_path / "work" / "grams").rglob("*.safetensors"):
        with safe_open(part, framework="numpy") as file, safe_open(_twin(whole, part), framework="numpy") as other:
            names = set(file.keys())
            assert {name for name in names if name.endswith(".output_gram")} == set(other.keys())
            for name in names - set(other.keys()):
                gram = file.get_tensor(name)
                assert gram.shape[0] == gram.shape[1]
                assert np.linalg.eigvalsh(gram)[-1] > 0
    assert content(tmp_path / "work" / "renderings") == content(whole / "work" / "renderings")


def test_two_processes_do_not_share_a_work_folder(source, tmp_path):
    def second(event: Event) -> None:
        if event.stage == "head":
            with pytest.raises(RefusedError, match="another process works in it"):
                probe(source, tmp_path)

    probe(source, tmp_path, progress=second)


def test_a_folder_that_was_no_work_folder_is_not_emptied(source, tmp_path):
    for name in ("renderings", "polish", "spool"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "mine").write_text(name)
    probe(source, tmp_path, restart=True, max_memory=working_bytes(pq.open(source)))
    for name in ("renderings", "polish", "spool"):
        assert (tmp_path / "work" / name / "mine").read_text() == name


def test_too_little_memory_is_refused(source, tmp_path):
    with pytest.raises(RefusedError, match=r"1\.00 MiB are allowed, about 1\.00 GiB are needed"):
        probe(source, tmp_path, max_memory="1MiB")


def _twin(whole: Path, path: Path) -> Path:
    return next((whole / "work" / "grams").rglob(path.name))
