"""The work folder: stage files of one model on one set of calibration data, in use by one process at a time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.errors import RefusedError, StageFileError
from prismaquant.pipeline.inputs import make_folder
from prismaquant.quantity import format_bytes

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.model import Model
    from prismaquant.rendering.cache import RenderCache
    from prismaquant.rendering.grams import GramStore

__all__ = ["gram_store", "journal_folder", "polish_folder", "render_cache", "spool_folder", "windows_file", "working"]

SCHEMA = "prismaquant.work/1"

_FILE, _LOCK = "work.json", ".lock"
_RENDERINGS, _GRAMS, _POLISH, _JOURNAL, _SPOOL = "renderings", "grams", "polish", "journal", "spool"
_WINDOWS = "windows.safetensors"

#: What the names of folders of hidden states begin with.
_STATES = "prismaquant-"


@dataclass(frozen=True, slots=True)
class _Work:
    """What the stage files were made from."""

    model: str
    calibration: str


@contextlib.contextmanager
def working(folder: Path, model: Model, calibration: str, *, restart: bool) -> Iterator[None]:
    """Inside, ``folder`` is there, belongs to ``model`` and ``calibration``, and no other process works in it.

    Parameters
    ----------
    calibration
        `Sensitivity.calibration`.
    restart
        Whether the stage files that are there are discarded. In a folder that was no work folder nothing is.

    Raises
    ------
    StageFileError
        The folder belongs to another model or calibration.
    RefusedError
        Another process works in it, or it cannot be made.
    """
    from filelock import FileLock, Timeout

    make_folder(folder)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RefusedError(
            "another process works in it", where=str(folder), hint="wait for it, or choose another (--work-dir)"
        ) from None
    try:
        _claim(folder, _Work(model.fingerprint, calibration), restart)
        for left in (folder / _SPOOL).glob(f"{_STATES}*"):  # by a killed run
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def render_cache(model: Model, preset: str, calibration: str | None, work_dir: Path) -> RenderCache:
    """The renderings of ``model`` in the work folder; ``calibration`` as in `RenderCache`."""
    from prismaquant.rendering.cache import RenderCache

    return RenderCache(work_dir / _RENDERINGS, model.fingerprint, preset, calibration)


def gram_store(model: Model, calibration: str, work_dir: Path) -> GramStore:
    """The Grams of ``model`` in the work folder."""
    from prismaquant.rendering.grams import GramStore

    return GramStore(work_dir / _GRAMS, model.fingerprint, calibration)


def journal_folder(work_dir: Path) -> Path:
    """Where the finished layers of a probe are until all are finished."""
    return work_dir / _JOURNAL


def windows_file(work_dir: Path) -> Path:
    """The windows of the probe, for the polish."""
    return work_dir / _WINDOWS


def polish_folder(work_dir: Path, plan: Plan) -> Path:
    """Where `quantize` keeps what the polish of ``plan`` has made."""
    return work_dir / _POLISH / plan.fingerprint.removeprefix("sha256:")[:16]


@contextlib.contextmanager
def spool_folder(work_dir: Path | None, nbytes: int) -> Iterator[Path]:
    """An empty folder for hidden states, removed at the end; without a work folder it is where temporary files are.

    Raises
    ------
    RefusedError
        Its disk has no room for ``nbytes``.
    """
    from tempfile import TemporaryDirectory

    if work_dir is not None:
        make_folder(work_dir / _SPOOL)
    with TemporaryDirectory(prefix=_STATES, dir=work_dir and work_dir / _SPOOL) as name:
        free = shutil.disk_usage(name).free
        if free < nbytes:
            raise RefusedError(
                f"{format_bytes(nbytes)} needed for hidden states, {format_bytes(free)} free",
                where=name,
                hint="choose a work folder on another disk (--work-dir), or allow more memory (--max-memory)",
            )
        yield Path(name)


def _claim(folder: Path, work: _Work, restart: bool) -> None:
    from prismaquant.files import record

    path = folder / _FILE
    if restart and path.exists():
        record.read(path, _Work, SCHEMA)  # or it is not ours to empty
        for part in (_RENDERINGS, _GRAMS, _POLISH, _JOURNAL):
            shutil.rmtree(folder / part, ignore_errors=True)
        path.unlink(missing_ok=True)
        (folder / _WINDOWS).unlink(missing_ok=True)
    if path.exists():
        found = record.read(path, _Work, SCHEMA)
        if found != work:
            what = "model" if found.model != work.model else "calibration data, or other probes"
            raise StageFileError(
                f"holds stage files of another {what}",
                where=str(folder),
                hint="choose another work folder (--work-dir), or discard them (--restart)",
            )
    else:
        record.write(path, work, SCHEMA)
