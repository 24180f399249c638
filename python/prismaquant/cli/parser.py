"""The parser of the command line: errors are our errors, options are written in kebab-case or with underscores."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from prismaquant.errors import ArgumentError

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises `ArgumentError`, and knows the option that was probably meant."""

    def __init__(self, **options: Any) -> None:
        # No abbreviations: a script with --s would break when another option with that letter is added.
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(message, hint=f"see {self.prog} --help")

    def needed(self) -> str:
        """What cannot be left out, for the usage."""
        needed = [action for action in self._actions if action.required]
        return " ".join(" ".join((*action.option_strings[:1], str(action.metavar))) for action in needed)

    def options_of(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The values of all options and positional arguments.

        Raises
        ------
        ArgumentError
            As the user is told: an unknown option (with the nearest), a missing or malformed value.
        """
        found, unknown = self.parse_known_args([_kebab(argument) for argument in arguments])
        if unknown:
            name = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(
                name, [known for known in self._option_string_actions if known[:2] == "--"], n=1
            )
            raise ArgumentError(
                f"unknown option {name}" if name.startswith("-") else f"one argument too many: {name}",
                hint=f"did you mean {near[0]}?" if near else f"see {self.prog} --help",
            )
        return vars(found)


class _Formatter(argparse.HelpFormatter):
    """Wraps paragraphs, keeps indented blocks (examples), and names the value of an option once."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = text.strip().split("\n\n")
        return "\n\n".join(
            block if re.search("^  ", block, re.MULTILINE) else textwrap.fill(block, width) for block in blocks
        )

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {self._format_args(action, action.dest.upper())}"


def _kebab(argument: str) -> str:
    """``--seq_len=8`` -> ``--seq-len=8``."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument
