"""An export that was killed anywhere goes on, and ends with the bytes of one that was not."""

from __future__ import annotations

import multiprocessing
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from prismaquant.exporting import run as run_module
from prismaquant.exporting.run import export
from prismaquant.exporting.verify import verify
from prismaquant.model import Model, open_model
from prismaquant.progress import Event
from support.plans import cycled
from support.tiny_models import build

SCHEMES = ("NVFP4A16", "FP8_DYNAMIC", "BF16")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(build("llama", tmp_path_factory.mktemp("model") / "llama", tokenizer=True, num_hidden_layers=4))


@pytest.fixture(scope="module")
def whole(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    export(model, cycled(model, SCHEMES), out, shard_size=60_000)
    return content(out)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_SYNC_BYTES", 20_000)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def die_at(model: Model, out: Path, write: int, share: float) -> None:
    """Export in this process, which ends, as by ``kill -9``, when the ``write``-th write has written its ``share``."""
    count, pwrite, copy_file_range = 0, os.pwrite, os.copy_file_range

    def is_last() -> bool:
        nonlocal count
        count += 1
        return count == write

    def dying(descriptor: int, data: memoryview, offset: int) -> int:
        if is_last():
            pwrite(descriptor, data[: int(len(data) * share)], offset)
            os._exit(9)
        return pwrite(descriptor, data, offset)

    def dying_copy(source: int, descriptor: int, size: int, begin: int, offset: int) -> int:
        if is_last():
            copy_file_range(source, descriptor, int(size * share), begin, offset)
            os._exit(9)
        return copy_file_range(source, descriptor, size, begin, offset)

    os.pwrite, os.copy_file_range = dying, dying_copy
    export(model, cycled(model, SCHEMES), out, shard_size=60_000)


def killed(model: Model, out: Path, write: int, share: float) -> bool:
    """Whether the export was killed; it was over before, if not."""
    process = multiprocessing.get_context("fork").Process(target=die_at, args=(model, out, write, share))
    process.start()
    process.join(60)
    return process.exitcode == 9


def test_a_run_that_was_killed_anywhere_goes_on(model: Model, whole: dict[str, bytes], tmp_path: Path) -> None:
    draw = random.Random(0)
    skipped = 0
    for number in range(50):
        out = tmp_path / str(number) / "out"
        assert killed(model, out, draw.randrange(1, 75), draw.random())
        assert not out.exists()
        left = out.with_name("out.partial")
        assert left.is_dir()
        skipped += (left / ".journal").exists() and len((left / ".journal").read_text().splitlines()) > 1
        export(model, cycled(model, SCHEMES), out, shard_size=60_000)
        assert content(out) == whole
        assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert skipped > 25


def test_what_is_written_is_not_rendered_again(
    model: Model, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert killed(model, out, 35, 0.5)
    rendered = []
    original = run_module._render

    def watching(model: Model, unit: object, *more: object) -> object:
        rendered.append(unit)
        return original(model, unit, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "_render", watching)
    events: list[Event] = []
    export(model, cycled(model, SCHEMES), out, shard_size=60_000, progress=events.append)
    assert 0 < len(rendered) < len(model.units)
    assert [event.done for event in events] == list(range(len(model.units) + 1))
    assert content(out) == whole
    assert verify(out, source=model.path).ok


def test_killed_twice(model: Model, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert killed(model, out, 40, 0.3)
    assert killed(model, out, 20, 0.9)
    export(model, cycled(model, SCHEMES), out, shard_size=60_000)
    assert content(out) == whole


@pytest.mark.parametrize("change", ["plan", "shard size"])
def test_what_a_run_of_another_kind_left_is_removed(model: Model, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    assert killed(model, out, 70, 0.5)
    plan = cycled(model, SCHEMES[::-1] if change == "plan" else SCHEMES)
    size = 60_000 if change == "plan" else 90_000
    export(model, plan, out, shard_size=size)
    export(model, plan, tmp_path / "fresh", shard_size=size)
    assert content(out) == content(tmp_path / "fresh")


def test_a_damaged_journal_is_believed_up_to_the_damage(model: Model, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert killed(model, out, 70, 0.5)
    journal = tmp_path / "out.partial" / ".journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:3]) + lines[3][:7])
    export(model, cycled(model, SCHEMES), out, shard_size=60_000)
    assert content(out) == whole


def test_other_prices_do_not_matter(model: Model, whole: dict[str, bytes], tmp_path: Path) -> None:
    """They are in the manifest only."""
    out = tmp_path / "out"
    assert killed(model, out, 70, 0.5)
    export(model, replace(cycled(model, SCHEMES), predicted_kl=1.0), out, shard_size=60_000)
    found = content(out)
    for name in ("prismaquant.json", "SHA256SUMS"):
        assert found.pop(name) != whole[name]
    assert found == {name: data for name, data in whole.items() if name in found}
