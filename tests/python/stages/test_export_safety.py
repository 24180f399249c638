"""The output folder appears complete or not at all, and nothing else is touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from prismaquant.errors import Error, RefusedError
from prismaquant.exporting import publish
from prismaquant.exporting.publish import publishing
from prismaquant.exporting.run import export
from prismaquant.model import Model, open_model
from prismaquant.progress import Event
from support.plans import cycled
from support.tiny_models import build

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(build("llama", tmp_path_factory.mktemp("model") / "llama"))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A model folder where the output is to go."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "old").write_text("old")
    return folder


def run(model: Model, out: Path, **options: object) -> None:
    export(model, cycled(model, ["NVFP4A16", "FP8_DYNAMIC", "BF16"]), out, **options)  # type: ignore[arg-type]


def stop_with(error: BaseException, at: int) -> object:
    def progress(event: Event) -> None:
        if event.done == at:
            raise error

    return progress


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_existing_output_is_refused(model: Model, old: Path) -> None:
    with pytest.raises(RefusedError, match=r"out: exists; .*--force"):
        run(model, old)
    assert names(old.parent) == ["out"]
    assert names(old) == ["config.json", "old"]


def test_an_empty_folder_is_refused_too(model: Model, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="exists"):
        run(model, tmp_path)


def test_force_replaces_a_model_folder(model: Model, old: Path) -> None:
    run(model, old, force=True)
    assert "prismaquant.json" in names(old)
    assert "old" not in names(old)
    assert names(old.parent) == ["out"]


def test_force_does_not_replace_other_folders_or_files(model: Model, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("x")
    with pytest.raises(RefusedError, match="is not a model folder, so it is not replaced"):
        run(model, tmp_path / "photos", force=True)
    with pytest.raises(RefusedError, match="is a file"):
        run(model, tmp_path / "photos" / "one.jpg", force=True)
    assert names(tmp_path) == ["photos"]


@pytest.mark.parametrize("force", [False, True])
def test_source_and_its_parents_are_never_an_output(model: Model, tmp_path: Path, force: bool) -> None:
    link = tmp_path / "link"
    link.symlink_to(model.path)
    for out in (model.path, model.path.parent, link, model.path / ".." / model.path.name):
        with pytest.raises(RefusedError, match="is the source model or contains it"):
            run(model, out, force=force)
    assert "config.json" in names(model.path)


def test_missing_parents_are_made(model: Model, tmp_path: Path) -> None:
    run(model, tmp_path / "a" / "b" / "out")
    assert names(tmp_path / "a" / "b") == ["out"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("bug"), SystemExit(1)])
def test_an_interrupted_run_leaves_nothing(model: Model, old: Path, error: BaseException, at: int, force: bool) -> None:
    out = old if force else old.parent / "new"
    with pytest.raises(type(error)):
        run(model, out, force=force, progress=stop_with(error, at))
    assert names(old.parent) == ["out"]
    assert names(old) == ["config.json", "old"]


def test_ctrl_c_in_a_real_process(model: Model, tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from prismaquant.exporting.run import export
from prismaquant.model import open_model
from support.plans import cycled
model = open_model(sys.argv[1])
def progress(event):
    if event.done == 3:
        os.kill(os.getpid(), signal.SIGINT)
export(model, cycled(model, ["NVFP4A16"]), Path(sys.argv[2]), progress=progress)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(model.path), str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode != 0
    assert names(tmp_path) == []


def test_leftovers_of_a_killed_run_are_removed(model: Model, tmp_path: Path) -> None:
    (tmp_path / "out.partial" / "deep").mkdir(parents=True)
    (tmp_path / "out.partial" / "model-00001-of-00001.safetensors").write_text("half")
    (tmp_path / "out.partial.lock").touch()
    run(model, tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert "deep" not in names(tmp_path / "out")


def test_a_run_killed_between_the_two_renames_is_undone(model: Model, old: Path) -> None:
    old.rename(old.with_name("out.partial.old"))
    with pytest.raises(RefusedError, match="exists"):
        run(model, old)
    assert names(old.parent) == ["out"]
    assert names(old) == ["config.json", "old"]


def test_a_second_process_is_refused(model: Model, tmp_path: Path) -> None:
    with FileLock(tmp_path / "out.partial.lock"):
        (tmp_path / "out.partial").mkdir()
        with pytest.raises(RefusedError, match=r"out: another process is writing it"):
            run(model, tmp_path / "out")
        assert names(tmp_path) == ["out.partial", "out.partial.lock"]


def test_no_room_is_noticed_before_the_work(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(Path(path))
        return Usage(10**9, 10**9 - 2**20, 2**20)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(RefusedError, match=r"MiB needed, 1\.00 MiB free"):
        run(model, tmp_path / "a" / "out")
    assert asked == [tmp_path]
    assert names(tmp_path) == []


def test_the_room_asked_for_is_enough(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was announced covers every byte but manifest and checksums, which fit into the margin."""
    announced: list[int] = []

    def watching(out: Path, *, nbytes: int, **more: object) -> object:
        announced.append(nbytes)
        return publishing(out, nbytes=nbytes, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("prismaquant.exporting.run.publishing", watching)
    run(model, tmp_path / "out", shard_size=30_000)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert sizes.pop("prismaquant.json") + sizes.pop("SHA256SUMS") < publish._MARGIN / 100
    assert announced == [sum(sizes.values())]


def test_a_full_disk_is_an_error_and_leaves_nothing(model: Model, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(Error, match=r"out: export failed: No space left on device; nothing was changed there"):
        run(model, old, force=True)
    assert names(old.parent) == ["out"]
    assert names(old) == ["config.json", "old"]


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with the options that the test asks for."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("disk", [f"size={publish._MARGIN + 2**20}"], indirect=True)
def test_a_disk_that_others_fill_meanwhile(model: Model, disk: Path) -> None:
    run(model, disk / "out")
    kept = {path.name: path.read_bytes() for path in (disk / "out").iterdir()}
    filler = disk / "filler"

    def fill(event: Event) -> None:
        if event.done == 2 and not filler.exists():
            with filler.open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(2**16))
                    file.flush()

    with pytest.raises(Error, match=r"out: export failed: No space left on device.*; nothing was changed there"):
        run(model, disk / "out", force=True, progress=fill)
    assert names(disk) == ["filler", "out"]
    assert {path.name: path.read_bytes() for path in (disk / "out").iterdir()} == kept
    filler.unlink()
    run(model, disk / "out", force=True)
    assert {path.name: path.read_bytes() for path in (disk / "out").iterdir()} == kept


@pytest.mark.parametrize("disk", ["size=16M"], indirect=True)
def test_a_disk_that_is_too_small(model: Model, disk: Path) -> None:
    with pytest.raises(RefusedError, match=r"needed, 16\.0 MiB free; free some space"):
        run(model, disk / "out")
    assert names(disk) == []


@pytest.mark.parametrize("disk", ["size=128M,ro"], indirect=True)
def test_a_disk_that_is_read_only(model: Model, disk: Path) -> None:
    with pytest.raises(RefusedError, match=r"cannot be written to \(Read-only file system\)"):
        run(model, disk / "out")
    assert names(disk) == []


def test_a_failed_rename_puts_the_old_folder_back(model: Model, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == "out.partial":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(Error, match="Input/output error"):
        run(model, old, force=True)
    assert names(old.parent) == ["out"]
    assert names(old) == ["config.json", "old"]


def test_a_place_that_cannot_be_written_is_refused(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RefusedError, match="cannot be written to"):
        run(model, tmp_path / "file" / "out")
    assert names(tmp_path) == ["file"]


def test_everything_is_on_the_disk_before_the_rename(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    fsync, rename = os.fsync, Path.rename

    def watching(file: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{file}").readlink()))
        fsync(file)

    def checking(path: Path, target: Path) -> Path:
        if path.name == "out.partial":
            written = {str(item) for item in path.rglob("*")}
            assert written | {str(path)} <= synced
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", watching)
    monkeypatch.setattr(Path, "rename", checking)
    run(model, tmp_path / "out")
    assert str(tmp_path) in synced, "the folder that holds the new name"
