"""`polish`: the units of a plan solved once more, for the inputs that they really get.

layer   one layer run with other weights and with quantized inputs
unit    one unit: solved again, and the better rendering kept
head    the divergence of whole builds
run     `polish`
"""

from __future__ import annotations

from prismaquant.calibration.polish.run import polish, states_bytes

__all__ = ["polish", "states_bytes"]
