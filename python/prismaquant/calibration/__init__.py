"""How much each unit matters and what each scheme would cost it: statistics over the walk, prices, `probe`.

    draw      which windows of the data serve for what
    collect   the sums over a layer's visits, for the solvers
    experts   what experts have that few tokens chose
    inputs    quantized inputs and their ranges
    prices    the prices, one file each
    unit      all prices of one unit
    settings  what is measured, and what is kept
    layer     all units of one layer
    towers    the units of towers, on samples
    measured  the price that is no estimate
    journal   the layers that are finished
    memory    what a probe takes
    run       `probe`

Imports torch.
"""

from __future__ import annotations

from prismaquant.calibration.draw import Draw, split
from prismaquant.calibration.measured import measure
from prismaquant.calibration.memory import fits_in_memory, states_bytes
from prismaquant.calibration.prices import DEFAULT_PRICES, MEASURED, PREVIEW_PRICE, PRICE_NAMES, PRICES
from prismaquant.calibration.run import probe
from prismaquant.calibration.towers import deal

__all__ = [
    "DEFAULT_PRICES",
    "MEASURED",
    "PREVIEW_PRICE",
    "PRICES",
    "PRICE_NAMES",
    "Draw",
    "deal",
    "fits_in_memory",
    "measure",
    "probe",
    "split",
    "states_bytes",
]
