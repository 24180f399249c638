"""A folder that appears at once or not at all: written as ``OUT.partial`` under a lock, then renamed to ``OUT``."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from prismaquant.errors import Error, RefusedError
from prismaquant.quantity import format_bytes

__all__ = ["preflight", "publishing", "sync"]

#: Room left for what the file system needs itself.
_MARGIN = 16 * 2**20


def preflight(out: Path, *, source: Path, nbytes: int, force: bool) -> None:
    """Refuse, before any work, what `publishing` would refuse at its end; parameters and errors as there."""
    out = Path(os.path.realpath(out))
    _check_place(out, source, force)
    _check_room(out, nbytes)


@contextlib.contextmanager
def publishing(
    out: Path, *, source: Path, nbytes: int, force: bool, keep: Callable[[Path], bool] = lambda _: False
) -> Iterator[Path]:
    """Give a new folder to fill; when the ``with`` block ends without an error it becomes ``out``.

    On any exception, Ctrl-C included, the new folder is removed and ``out`` is as it was.

    Parameters
    ----------
    source
        The folder that is read; ``out`` may neither be it nor contain it.
    nbytes
        Bytes that are going to be written.
    force
        Whether an existing model folder at ``out`` may be replaced, once the new one is complete.
    keep
        Whether what a killed run left in its folder may stay; else the folder is empty.

    Raises
    ------
    RefusedError
        ``out`` exists, is in work by another process, cannot be written to, or does not fit on the disk.
    Error
        The operating system failed while reading or writing.
    """
    preflight(out, source=source, nbytes=nbytes, force=force)
    out = Path(os.path.realpath(out))
    partial = out.with_name(f"{out.name}.partial")
    old = out.with_name(f"{out.name}.partial.old")
    with _locked(out, partial):
        try:
            _tidy(out, partial, old, keep)
            # Looked at again under the lock: another process may have published meanwhile.
            _check_place(out, source, force)
            partial.mkdir(exist_ok=True)
            yield partial
            _flush(partial)
            _replace(out, partial, old)
        except OSError as cause:
            what = f"{cause.strerror}, {cause.filename}" if cause.filename else cause.strerror or str(cause)
            raise Error(f"export failed: {what}", where=str(out), hint="nothing was changed there") from cause
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _check_place(out: Path, source: Path, force: bool) -> None:
    source = Path(os.path.realpath(source))
    if out == source or out in source.parents:
        raise RefusedError("is the source model or contains it", where=str(out), hint="choose another output folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise RefusedError("is a file", where=str(out), hint="choose another output folder")
    if not force:
        raise RefusedError(
            "exists", where=str(out), hint="choose another output folder, or replace this one with force (--force)"
        )
    if any(out.iterdir()) and not (out / "config.json").is_file():
        raise RefusedError("is not a model folder, so it is not replaced", where=str(out), hint="remove it yourself")


def _check_room(out: Path, nbytes: int) -> None:
    existing = next(path for path in out.parents if path.exists())
    free = shutil.disk_usage(existing).free + _leftover(out)
    if free < nbytes + _MARGIN:
        raise RefusedError(
            f"{format_bytes(nbytes + _MARGIN)} needed, {format_bytes(free)} free",
            where=str(existing),
            hint="free some space, or choose an output folder on another disk",
        )


def _leftover(out: Path) -> int:
    """Bytes on the disk that a killed run left, which are used again or removed."""
    return sum(path.stat().st_blocks * 512 for path in out.with_name(f"{out.name}.partial").rglob("*"))


@contextlib.contextmanager
def _locked(out: Path, partial: Path) -> Iterator[None]:
    lock = FileLock(f"{partial}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RefusedError(
            "another process is writing it", where=str(out), hint="wait for it, or choose another output folder"
        ) from None
    except OSError as cause:
        raise RefusedError(
            f"cannot be written to ({cause.strerror})", where=str(out.parent), hint="choose another output folder"
        ) from cause
    try:
        yield
    finally:
        # Removed while it is held: a process that opened it before sees that it was unlinked, and makes a new one.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _tidy(out: Path, partial: Path, old: Path, keep: Callable[[Path], bool]) -> None:
    """Remove what a killed run left, but for what is kept; if it died between two renames, put the old folder back."""
    if old.exists() and not out.exists():
        old.rename(out)
    for leftover in (partial, old):
        if leftover.exists() and not (leftover == partial and keep(partial)):
            shutil.rmtree(leftover)


def _flush(folder: Path) -> None:
    """Have the disk take every file and folder under ``folder``, and itself."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def _replace(out: Path, partial: Path, old: Path) -> None:
    """Rename ``partial`` to ``out``; what was there moves aside first and is removed last."""
    existed = out.exists()
    if existed:
        out.rename(old)
    try:
        partial.rename(out)
    except BaseException:
        if existed:
            old.rename(out)
        raise
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Return when the disk has the file or folder ``path``."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
