"""How much each unit matters and what each scheme would cost it: statistics over the walk, prices, `probe`.

    collect   the sums over a layer's visits
    price     the prices: functions of a weight error and the sums
    run       `probe`

Imports torch.
"""

from __future__ import annotations

from prismaquant.calibration.price import PRICES
from prismaquant.calibration.run import probe

__all__ = ["PRICES", "probe"]
