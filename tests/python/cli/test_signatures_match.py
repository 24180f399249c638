"""A verb and its function have the same arguments with the same defaults, so neither can do what the other cannot."""

from __future__ import annotations

import argparse
import inspect
from importlib import import_module
from typing import Any

import pytest

import prismaquant
from prismaquant.cli import VERBS, main, parser_of

#: Arguments of the command line alone, and of functions alone.
_OUTPUT = {"json", "verbose", "help"}
_SINKS = {"progress"}


def _module(verb: str) -> Any:
    return import_module(f"prismaquant.cli.{verb.replace('-', '_')}")


def function_of(verb: str) -> Any:
    return getattr(prismaquant, _module(verb).FUNCTION)


def actions(verb: str) -> dict[str, argparse.Action]:
    return {action.dest: action for action in parser_of(verb)._actions if action.dest not in _OUTPUT}


def parameters(verb: str) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function_of(verb)).parameters
    return {name: parameter for name, parameter in found.items() if name not in _SINKS}


@pytest.mark.parametrize("verb", VERBS)
def test_same_names(verb):
    assert set(actions(verb)) == set(parameters(verb))


@pytest.mark.parametrize("verb", VERBS)
def test_same_defaults(verb):
    expected = {
        name: None if parameter.default is inspect.Parameter.empty else parameter.default
        for name, parameter in parameters(verb).items()
        if name != "force"
    }
    found = {name: action.default for name, action in actions(verb).items() if name != "force"}
    assert found == expected
    assert not actions(verb).get("force", argparse.Namespace(default=False)).default


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_function_needs_is_required(verb):
    for name, parameter in parameters(verb).items():
        assert actions(verb)[name].required == (parameter.default is inspect.Parameter.empty), name


@pytest.mark.parametrize("verb", VERBS)
def test_only_what_the_sink_needs_is_added(verb):
    takes_progress = "progress" in inspect.signature(function_of(verb)).parameters
    assert takes_progress == _module(verb).LONG


@pytest.mark.parametrize("verb", VERBS)
def test_options_are_in_kebab_case_and_underscores_are_understood(verb):
    for action in actions(verb).values():
        for option in action.option_strings:
            assert "_" not in option
    plain = {name: action for name, action in actions(verb).items() if action.option_strings and action.nargs is None}
    needed = [
        part for action in actions(verb).values() if action.required for part in ([*action.option_strings[:1], "x"])
    ]
    for name, action in plain.items():
        value = {int: "7", float: "7.5"}.get(action.type, "X")
        for spelling in (name.replace("_", "-"), name):
            if f"--{name.replace('_', '-')}" in action.option_strings:
                options = parser_of(verb).options_of([*needed, f"--{spelling}", value])
                assert options == parser_of(verb).options_of([*needed, f"--{spelling}={value}"])
                expected = {"schemes": ("X",), "data": ["X"] if verb != "eval" else "X"}
                assert options[name] == expected.get(name, (action.type or str)(value))


def test_the_function_gets_what_was_typed(monkeypatch, capsys):
    seen: dict[str, Any] = {}

    def quantize(**options: Any) -> None:
        seen.update(options)
        raise prismaquant.Error("far enough")

    monkeypatch.setattr(prismaquant, "quantize", quantize)
    assert (
        main(
            [
                "quantize",
                "M",
                "-o",
                "O",
                "--bpw",
                "4.5",
                "--schemes",
                "fp8_dynamic,bf16",
                "--work_dir",
                "W_1",
                "--force",
                "--threads",
                "3",
                "--data",
                "a.jsonl:n=3",
                "--data=self",
            ]
        )
        == 1
    )
    assert seen.pop("progress")
    expected = {
        name: parameter.default for name, parameter in inspect.signature(pipeline_quantize()).parameters.items()
    }
    expected |= {"model": "M", "out": "O", "bpw": 4.5, "schemes": ("FP8_DYNAMIC", "BF16"), "work_dir": "W_1"}
    expected |= {"force": True, "threads": 3, "data": ["a.jsonl:n=3", "self"]}
    del expected["progress"]
    assert seen == expected
    assert capsys.readouterr().err == "error: far enough\n"


def pipeline_quantize() -> Any:
    return import_module("prismaquant.pipeline").quantize
