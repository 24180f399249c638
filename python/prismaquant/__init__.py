"""prismaquant: mixed-precision quantization of language models, every Linear in the number format that it earns.

This file is a table of contents: a name is imported when it is first used, so ``import prismaquant`` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prismaquant._core import version as _version
    from prismaquant.codec import Codec, Quantized, get_codec
    from prismaquant.environment import Environment, doctor, get_include
    from prismaquant.errors import Error
    from prismaquant.files.evaluation import Evaluation
    from prismaquant.files.plan import Plan
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.formats import format_info, get_scheme, list_formats, list_schemes
    from prismaquant.pipeline import (
        convert,
        diff,
        evaluate,
        explain,
        export,
        frontier,
        open,
        outlook,
        plan,
        polish,
        probe,
        quantize,
        serve_command,
        verify,
    )
    from prismaquant.planning import Allocation, Constraint, Explanation, Frontier, Outlook, allocate
    from prismaquant.solver import (
        CoordinateDescent,
        Gptq,
        Preset,
        Rtn,
        ScaleSweep,
        Shift,
        Solution,
        TwoSided,
        describe_presets,
        list_presets,
        shared_global_scale,
        solve,
    )

    __version__ = _version()
else:
    _HOME = {
        "Allocation": "planning",
        "Codec": "codec",
        "Constraint": "planning",
        "CoordinateDescent": "solver",
        "Environment": "environment",
        "Error": "errors",
        "Evaluation": "files.evaluation",
        "Explanation": "planning",
        "Frontier": "planning",
        "Gptq": "solver",
        "Outlook": "planning",
        "Plan": "files.plan",
        "Preset": "solver",
        "Quantized": "codec",
        "Rtn": "solver",
        "ScaleSweep": "solver",
        "Sensitivity": "files.sensitivity",
        "Shift": "solver",
        "Solution": "solver",
        "TwoSided": "solver",
        "allocate": "planning",
        "convert": "pipeline",
        "describe_presets": "solver",
        "diff": "pipeline",
        "doctor": "environment",
        "evaluate": "pipeline",
        "explain": "pipeline",
        "export": "pipeline",
        "format_info": "formats",
        "frontier": "pipeline",
        "get_codec": "codec",
        "get_include": "environment",
        "get_scheme": "formats",
        "list_formats": "formats",
        "list_presets": "solver",
        "list_schemes": "formats",
        "open": "pipeline",
        "outlook": "pipeline",
        "plan": "pipeline",
        "polish": "pipeline",
        "probe": "pipeline",
        "quantize": "pipeline",
        "serve_command": "pipeline",
        "shared_global_scale": "solver",
        "solve": "solver",
        "verify": "pipeline",
    }

    def __getattr__(name: str) -> Any:
        import importlib

        if name == "__version__":
            return importlib.import_module("prismaquant._core").version()
        if name not in _HOME:
            raise AttributeError(f"module 'prismaquant' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"prismaquant.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted([*__all__, "__version__"])


__all__ = [
    "Allocation",
    "Codec",
    "Constraint",
    "CoordinateDescent",
    "Environment",
    "Error",
    "Evaluation",
    "Explanation",
    "Frontier",
    "Gptq",
    "Outlook",
    "Plan",
    "Preset",
    "Quantized",
    "Rtn",
    "ScaleSweep",
    "Sensitivity",
    "Shift",
    "Solution",
    "TwoSided",
    "allocate",
    "convert",
    "describe_presets",
    "diff",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "format_info",
    "frontier",
    "get_codec",
    "get_include",
    "get_scheme",
    "list_formats",
    "list_presets",
    "list_schemes",
    "open",
    "outlook",
    "plan",
    "polish",
    "probe",
    "quantize",
    "serve_command",
    "shared_global_scale",
    "solve",
    "verify",
]
