"""The command line: ``prismaquant VERB ...``. Each verb is one small file over one public function.

Results go to stdout (a table, or with ``--json`` a document, for errors too), everything else to stderr. Exit codes:
0 ok, 1 an operation failed, 2 usage, 3 refused before work, 4 verification failed, 130 interrupted.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from prismaquant.cli.parser import Parser
from prismaquant.errors import ArgumentError, Error

__all__ = ["VERBS", "main", "overview", "parser_of"]

#: Verb -> what it does, as the overview says it. The module ``prismaquant.cli.<verb>`` is imported only when it runs.
VERBS = {
    "inspect": "what is in a model folder: units, shapes, what can be quantized",
    "quantize": "probe, plan, polish, export and verify: a model folder becomes a mixed-precision checkpoint",
    "probe": "measure how much every unit matters, and what each scheme would cost it",
    "plan": "choose a scheme for every unit within a budget, proven optimal",
    "frontier": "what every budget buys, and where another bit stops paying",
    "explain": "why a unit has its scheme, what was near, and how sure that is",
    "polish": "solve the units of a plan again, for the inputs that the quantized model gives them",
    "export": "write the checkpoint that a plan describes",
    "verify": "read a written checkpoint back and check it, against its source too",
    "convert": "a quantized checkpoint becomes a plain one, a plain one NF4, a recipe that of another tool",
    "serve-cmd": "the vllm serve command for a written checkpoint, and what was not tested",
    "diff": "which units two recipes or checkpoints store differently",
    "eval": "KL divergence, top-1 agreement and perplexity against the source",
    "doctor": "versions, instruction sets, optional packages",
}
_EXAMPLES = """\
examples:
  prismaquant inspect ./Llama-3.2-1B
  prismaquant quantize ./Llama-3.2-1B -o ./Llama-3.2-1B-4.75 --bpw 4.75 --data calibration.txt
  prismaquant eval ./Llama-3.2-1B-4.75 --source ./Llama-3.2-1B --data held-out.txt
"""
_EPILOG = """\
'prismaquant VERB --help' explains a verb.

Exit codes: 0 ok, 1 an operation failed, 2 usage, 3 refused before work, 4 verification failed, 130 interrupted.
"""
_INTERRUPTED = "nothing half-written was left; the same command goes on from the stage files that are complete"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Only ``--help`` and ``--version`` leave by `SystemExit`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except Error as error:
        if "-v" in arguments or "--verbose" in arguments:
            traceback.print_exception(error)
        _complain(error, as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"interrupted: {'; '.join(getattr(interrupt, '__notes__', None) or [_INTERRUPTED])}\n")
        return 130
    except BrokenPipeError:  # the reader of stdout has seen enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # a mistake of ours: all there is to know is shown
        traceback.print_exception(error)
        if as_json:
            _print_json({"error": {"type": type(error).__name__, "message": str(error), "where": None, "hint": None}})
        return 1


def overview() -> Parser:
    """The parser of ``prismaquant`` without a verb."""
    parser = Parser(
        prog="prismaquant",
        usage="prismaquant [-h] [--version] VERB ...",
        description=f"Mixed-precision quantization of language models.\n\n{_EXAMPLES}\nverbs:\n"
        + "".join(f"  {verb:9} {what}\n" for verb, what in VERBS.items()),
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


def parser_of(verb: str) -> Parser:
    """The parser of one verb; the names of its arguments are the parameters of its function."""
    module = _module(verb)
    parser = Parser(prog=f"prismaquant {verb}", description=f"{module.__doc__}\n\n{module.EXAMPLES}")
    module.add_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the result as a JSON document on stdout")
    group.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    parser.usage = f"{parser.prog} [options] {parser.needed()}".rstrip()
    return parser


def _run(arguments: list[str]) -> int:
    import prismaquant

    verb = arguments[0] if arguments else "--help"
    if verb.startswith("-"):
        if any(argument in VERBS for argument in arguments):
            raise ArgumentError(f"{verb} comes before the verb", hint=f"write prismaquant VERB ... {verb}")
        overview().options_of(arguments or [verb])
        sys.stdout.write(f"prismaquant {prismaquant.__version__}\n")
        return 0
    if verb not in VERBS:
        from prismaquant.formats import unknown_name

        raise unknown_name("verb", verb, VERBS)
    module = _module(verb)
    options = parser_of(verb).options_of(arguments[1:])
    as_json, _ = options.pop("json"), options.pop("verbose")
    function = getattr(module, "call", None) or getattr(prismaquant, module.FUNCTION)
    if module.LONG:
        from prismaquant.cli.heap import map_large_arrays
        from prismaquant.cli.progress import bar

        map_large_arrays()
        with bar() as progress:
            result = function(**options, progress=progress)
    else:
        result = function(**options)
    if as_json:
        _print_json(module.document(result))
    else:
        module.show(result)
    return int(module.exit_code(result)) if hasattr(module, "exit_code") else 0


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"prismaquant.cli.{verb.replace('-', '_')}")


def _print_json(document: Any) -> None:
    json.dump(document, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def _complain(error: Error, *, as_json: bool) -> None:
    if as_json:
        _print_json({"error": error.as_dict()})
        return
    where = f"{error.where}: " if error.where else ""
    sys.stderr.write(f"error: {where}{error.message}\n")
    for line in (error.hint, *getattr(error, "__notes__", ())):
        if line:
            sys.stderr.write(f"  {line}\n")
