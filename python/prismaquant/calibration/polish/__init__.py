"""`polish`: the units of a plan solved once more, for the inputs that they really get.

layer    one layer run with other weights and with quantized inputs
head     the divergence of whole builds
streams  hidden states of the source and of the builds, moved through the layers
unit     what one unit is solved and judged by
run      `polish`
"""

from __future__ import annotations

from prismaquant.calibration.polish.run import Stores, polish
from prismaquant.calibration.polish.streams import LAYERS_HELD, states_bytes

__all__ = ["LAYERS_HELD", "Stores", "polish", "states_bytes"]
