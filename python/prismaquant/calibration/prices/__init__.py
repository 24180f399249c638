"""Prices: the expected KL divergence, in nats per token, of replacing one unit. All are second-order.

    price         `Price`, and what it sees: output errors of the Linears of a unit, on one batch
    fisher_trace  half the trace of the Fisher matrix times the mean squared error of the weight
    fisher_gram   the output error, weighted by the mean squared gradient of each row
    kfac          the output error, weighted by the Gram of the output gradients
    directional   the output error, projected on sampled gradients

A new one is a subclass of `Price`, and a line in `PRICES`. `MEASURED`, by `calibration.measured`, is no estimate.
"""

from __future__ import annotations

from prismaquant.calibration.prices.directional import Directional, DirectionalSequence
from prismaquant.calibration.prices.fisher_gram import FisherGram
from prismaquant.calibration.prices.fisher_trace import FisherTrace
from prismaquant.calibration.prices.kfac import Kfac
from prismaquant.calibration.prices.price import LinearErrors, Price, UnitErrors

__all__ = [
    "DEFAULT_PRICES",
    "MEASURED",
    "PREVIEW_PRICE",
    "PRICES",
    "PRICE_NAMES",
    "LinearErrors",
    "Price",
    "UnitErrors",
]


#: Every price, by the name that `plan` takes.
PRICES: dict[str, type[Price]] = {
    "fisher-trace": FisherTrace,
    "fisher-gram": FisherGram,
    "kfac": Kfac,
    "directional": Directional,
    "directional-sequence": DirectionalSequence,
}

#: The KL divergence itself, of the model with the unit replaced: much slower, only on request.
MEASURED = "measured"

#: The one that needs no rendering.
PREVIEW_PRICE = "fisher-trace"

PRICE_NAMES = (*PRICES, MEASURED)

#: What `probe` computes if it is not told: `kfac` costs a product with the Gram for each scheme, and sees less.
DEFAULT_PRICES = ("fisher-trace", "fisher-gram", "directional", "directional-sequence")
