"""Exceptions of the package, each with the exit code that the command line gives it.

Error
├── ArgumentError       an argument is wrong: its name, what was got, what is accepted       exit 2
│   ├── ShapeError      a tensor has a shape that the operation cannot take (names the axis)
│   ├── FormatError     an unknown format, scheme, preset or price name
│   └── NumericError    NaN or infinity where only finite numbers can be stored   exit 3
├── RefusedError        the work was not started: nothing was read or written beyond headers   exit 3
│   ├── ModelError      the model folder cannot be used: missing, truncated, unknown
│   ├── DataError       the calibration or evaluation data cannot be used
│   ├── BudgetError     no plan fits; carries ``minimum`` and ``maximum`` bytes
│   ├── StageFileError  a stage file (sensitivity, plan, ...) is broken or belongs to another model
│   └── MissingExtraError  an optional package is not installed; says which extra brings it
└── VerificationError   a written checkpoint breaks a rule                                     exit 4
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ArgumentError",
    "BudgetError",
    "DataError",
    "Error",
    "FormatError",
    "MissingExtraError",
    "ModelError",
    "NumericError",
    "RefusedError",
    "ShapeError",
    "StageFileError",
    "VerificationError",
]


class Error(Exception):
    """Base of every exception of the package.

    Parameters
    ----------
    message
        What was wrong, with the value that was got.
    where
        The file, tensor or argument it was found in.
    hint
        What to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}; {self.hint}" if self.hint else text

    def as_dict(self) -> dict[str, Any]:
        """The document that ``--json`` prints under ``"error"``."""
        return {"type": type(self).__name__, "message": self.message, "where": self.where, "hint": self.hint}


class ArgumentError(Error, ValueError):
    exit_code = 2


class ShapeError(ArgumentError):
    pass


class FormatError(ArgumentError):
    pass


class NumericError(ArgumentError, ArithmeticError):
    exit_code = 3  # on the command line the numbers are a model's: the input is refused, the usage was right


class RefusedError(Error):
    exit_code = 3


class ModelError(RefusedError):
    pass


class DataError(RefusedError):
    pass


class BudgetError(RefusedError):
    """No plan fits. ``minimum`` and ``maximum`` are the bytes of the smallest and the largest possible plan."""

    def __init__(
        self,
        message: str,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.minimum = minimum
        self.maximum = maximum

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "minimum": self.minimum, "maximum": self.maximum}


class StageFileError(RefusedError):
    pass


class MissingExtraError(RefusedError, ImportError):
    pass


class VerificationError(Error):
    exit_code = 4
