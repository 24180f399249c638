"""What the verbs are given, as the stages take it: paths become objects, and what is wrong is found before any work."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prismaquant.codec.arguments import thread_count
from prismaquant.errors import MissingExtraError, ModelError, RefusedError, StageFileError

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.types import PathLike

__all__ = [
    "DEFAULT_PRICE",
    "check_known",
    "check_threads",
    "folder_of",
    "make_folder",
    "menu_of",
    "open",
    "plan_of",
    "read_plan",
    "read_sensitivity",
    "require_extra",
    "sensitivity_of",
]

DEFAULT_PRICE = "directional"

_LOG = logging.getLogger("prismaquant")


def open(model: PathLike | Model) -> Model:
    """Open a model folder: reads its config and the headers of its shards, no weights.

    Raises
    ------
    ModelError
        Not a model folder, damaged, of an unknown architecture, or already quantized.
    """
    from prismaquant.model import Model, open_model

    return model if isinstance(model, Model) else open_model(model)


def folder_of(model: PathLike | Model) -> Path:
    """The folder of a model that is not opened here."""
    from prismaquant.model import Model

    return model.path if isinstance(model, Model) else Path(model)


def menu_of(schemes: Sequence[str]) -> tuple[str, ...]:
    """The names, each once; one name may come alone."""
    return (schemes,) if isinstance(schemes, str) else tuple(dict.fromkeys(schemes))


def sensitivity_of(sensitivity: PathLike | Sensitivity | None, model: Model) -> Sensitivity | None:
    """`read_sensitivity`, where there is one."""
    return None if sensitivity is None else read_sensitivity(sensitivity, model)


def read_sensitivity(sensitivity: PathLike | Sensitivity, model: Model) -> Sensitivity:
    """The sensitivity, read if it is a file; a file of another model is named."""
    from prismaquant.files import sensitivity as file
    from prismaquant.files.sensitivity import Sensitivity

    if isinstance(sensitivity, Sensitivity):
        return sensitivity
    found = file.read(Path(sensitivity))
    if found.model != model.fingerprint:
        raise _of_another_model(Path(sensitivity), found.model, model, "probe this model")
    return found


def read_plan(place: PathLike | Plan) -> Plan:
    """The plan: itself, in a recipe, or in the manifest of a folder that was exported by it."""
    from prismaquant.files import manifest
    from prismaquant.files import plan as file
    from prismaquant.files.plan import Plan

    if isinstance(place, Plan):
        return place
    path = Path(place)
    return manifest.read(path / manifest.FILE).plan if path.is_dir() else file.read(path)


def plan_of(plan: PathLike | Plan, model: Model) -> Plan:
    """`read_plan`; a file of another model is named."""
    from prismaquant.files.plan import Plan

    found = read_plan(plan)
    if isinstance(plan, Plan):
        return plan
    if found.model != model.fingerprint:
        raise _of_another_model(Path(plan), found.model, model, "plan again for this model")
    return found


def _of_another_model(path: Path, found: str, model: Model, hint: str) -> StageFileError:
    return StageFileError(
        f"was made for another model ({found[:19]}..., this one is {model.fingerprint[:19]}...)",
        where=str(path),
        hint=hint,
    )


def make_folder(folder: Path) -> None:
    """Make ``folder`` before the work whose result it is going to hold.

    Raises
    ------
    RefusedError
        It cannot be made, or it is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise RefusedError(
            f"cannot be made ({cause.strerror})", where=str(folder), hint="choose another folder"
        ) from cause


def check_known(model: Model, *, strict: bool) -> None:
    """Log the weights in the layers of ``model`` that its architecture entry does not know.

    Raises
    ------
    ModelError
        There are some, and ``strict``.
    """
    if not model.unknown:
        return
    first, more = model.unknown[0], len(model.unknown) - 1
    what = first + (f" and {more} more" if more else "")
    entry = f"the entry of {model.architecture.model_type!r}"
    if strict:
        raise ModelError(
            f"{entry} does not know {what}",
            where=str(model.path),
            hint=f"add them to units or kept of {entry}, or leave them as they are (without --strict)",
        )
    _LOG.warning("kept as they are, because %s does not know them: %s", entry, what)


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that is none."""
    thread_count(threads)


def require_extra(extra: str, *modules: str) -> None:
    """Refuse if one of ``modules``, which the optional packages ``[extra]`` bring, is not installed.

    Raises
    ------
    MissingExtraError
        Names what is missing and the line that installs it.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"{' and '.join(missing)} {verb} not installed", hint=f"pip install 'prismaquant-cpp[{extra}]'"
        )
