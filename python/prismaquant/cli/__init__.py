"""The command line: ``prismaquant VERB ...``. Each verb is one small file over one public function.

Results go to stdout (a table, or with ``--json`` a document), everything else to stderr. Exit codes: 0 ok, 1 an operation
failed, 2 usage, 3 refused before work, 4 verification failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from prismaquant.errors import Error

__all__ = ["VERBS", "main", "parser_of"]

#: Verb -> what it does, as the overview says it. The module ``prismaquant.cli.<verb>`` is imported only when it runs.
VERBS = {
    "inspect": "what is in a model folder: units, shapes, what can be quantized",
    "quantize": "probe, plan, export and verify: a model folder becomes a mixed-precision checkpoint",
    "verify": "read a written checkpoint back and check it, against its source too",
    "eval": "KL divergence, top-1 agreement and perplexity against the source",
    "doctor": "versions, instruction sets, optional packages",
}
_EXAMPLES = """\
examples:
  prismaquant inspect ./Llama-3.2-1B
  prismaquant quantize ./Llama-3.2-1B -o ./Llama-3.2-1B-4.75 --bpw 4.75 --data calibration.txt
  prismaquant eval ./Llama-3.2-1B-4.75 --source ./Llama-3.2-1B --data held-out.txt

'prismaquant VERB --help' explains a verb. Exit codes: 0 ok, 2 usage, 3 refused before work, 4 verification failed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in VERBS:
        overview().parse_args(arguments or ["--help"])
        return 2
    verb = arguments[0]
    options = vars(parser_of(verb).parse_args(arguments[1:]))
    as_json, verbose = options.pop("json"), options.pop("verbose")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return _run(_module(verb), options, as_json=as_json)
    except Error as error:
        if verbose:
            logging.getLogger("prismaquant").error("", exc_info=error)
        _complain(error, as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(
            "interrupted: nothing half-written was left; the same command continues from the stage files\n"
        )
        return 130


def overview() -> argparse.ArgumentParser:
    """The parser of ``prismaquant`` without a verb."""
    parser = argparse.ArgumentParser(
        prog="prismaquant",
        description="Mixed-precision quantization of language models.",
        epilog="verbs:\n" + "".join(f"  {verb:9} {what}\n" for verb, what in VERBS.items()) + "\n" + _EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do, see below")
    return parser


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb; the names of its arguments are the parameters of its function."""
    module = _module(verb)
    parser = argparse.ArgumentParser(
        prog=f"prismaquant {verb}",
        description=module.__doc__,
        epilog=module.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the result as a JSON document on stdout")
    group.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    return parser


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import prismaquant

        sys.stdout.write(f"prismaquant {prismaquant.__version__}\n")
        parser.exit()


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"prismaquant.cli.{verb}")


def _run(module: ModuleType, options: dict[str, Any], *, as_json: bool) -> int:
    import prismaquant

    function = getattr(prismaquant, module.FUNCTION)
    if module.LONG:
        from prismaquant.cli.progress import bar

        with bar() as progress:
            result = function(**options, progress=progress)
    else:
        result = function(**options)
    if as_json:
        json.dump(module.document(result), sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        module.show(result)
    return int(module.exit_code(result)) if hasattr(module, "exit_code") else 0


def _complain(error: Error, *, as_json: bool) -> None:
    if as_json:
        json.dump({"error": error.as_dict()}, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        where = f"{error.where}: " if error.where else ""
        sys.stderr.write(f"error: {where}{error.message}\n")
        if error.hint:
            sys.stderr.write(f"  {error.hint}\n")
