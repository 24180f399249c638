"""The verbs. Each takes paths or objects, imports its stage when it is called, and returns plain data.

`quantize` is the other verbs in a row. Long work keeps its stage files in a work folder, each with the fingerprint of
what it was made from: a second run with the same inputs uses them again.
"""

from prismaquant.pipeline.decision import diff, explain, frontier, outlook, plan
from prismaquant.pipeline.inputs import open
from prismaquant.pipeline.measurement import evaluate, probe
from prismaquant.pipeline.polishing import polish
from prismaquant.pipeline.production import convert, export, serve_command, verify
from prismaquant.pipeline.quantization import QuantizeReport, quantize

__all__ = [
    "QuantizeReport",
    "convert",
    "diff",
    "evaluate",
    "explain",
    "export",
    "frontier",
    "open",
    "outlook",
    "plan",
    "polish",
    "probe",
    "quantize",
    "serve_command",
    "verify",
]
