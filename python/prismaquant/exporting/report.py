"""`VerifyReport`: what `verify` found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prismaquant.errors import VerificationError

__all__ = ["Check", "LinearCheck", "VerifyReport"]

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Check:
    """A rule that the folder breaks.

    Attributes
    ----------
    rule
        Short fixed name of the rule (``"tensor-shape"``).
    where
        The tensor, module or file.
    text
        What is wrong, with the value that was found and the one expected.
    is_warning
        Whether the folder can be right all the same: something that cannot be judged, or that engines make up for.
    """

    rule: str
    where: str
    text: str
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.text} [{self.rule}]"


@dataclass(frozen=True, slots=True)
class LinearCheck:
    """How one Linear compares to the source.

    Attributes
    ----------
    name, scheme
        The Linear, and its scheme by the configuration.
    snr_db
        ``10 log10(sum w^2 / sum (decoded - w)^2)``; infinite where nothing was lost, ``None`` without a source.
    squared_error
        ``sum (decoded - w)^2`` of the bytes in the folder; ``None`` without a source.
    equals_manifest
        Whether that is the number in the manifest, to the last bit; ``None`` if one of the two is missing.
    """

    name: str
    scheme: str
    snr_db: float | None = None
    squared_error: float | None = None
    equals_manifest: bool | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Result of `verify`.

    Attributes
    ----------
    path
        The folder.
    linears
        One entry per Linear whose tensors could be decoded, in the order of the model.
    failures
        Every rule that is broken, with the place.
    warnings
        What cannot be judged, or works but should be known.
    source_compared
        Whether the folder was compared to its source; if not, everything that needs the source was left out.
    """

    path: Path
    linears: tuple[LinearCheck, ...]
    failures: tuple[Check, ...]
    source_compared: bool
    warnings: tuple[Check, ...] = ()

    @staticmethod
    def of(
        path: Path, checks: Sequence[Check], *, linears: Sequence[LinearCheck] = (), source_compared: bool = False
    ) -> VerifyReport:
        """The report of all ``checks``."""
        failures, warnings = (tuple(x for x in checks if x.is_warning == kind) for kind in (False, True))
        return VerifyReport(path, tuple(linears), failures, source_compared, warnings)

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return not self.failures

    def raise_for_failures(self) -> None:
        """Raise `VerificationError`, which names the first few failures, unless there is none."""
        if self.ok:
            return
        shown = "; ".join(str(check) for check in self.failures[:_SHOWN])
        more = len(self.failures) - _SHOWN
        raise VerificationError(
            f"has {_count(len(self.failures))}: {shown}" + (f"; and {more} more" if more > 0 else ""),
            where=str(self.path),
            hint="do not serve this folder; export it again",
        )

    def __repr__(self) -> str:
        outcome = "ok" if self.ok else f"{_count(len(self.failures))}, first: {self.failures[0]}"
        source = "compared to its source" if self.source_compared else "not compared to a source"
        return f"VerifyReport({outcome}; {len(self.linears)} Linears, {source})"


def _count(failures: int) -> str:
    return "1 failure" if failures == 1 else f"{failures} failures"
