"""`probe_towers`: what the units of vision and audio towers cost, on prompts with images or audio.

The loss is that of the language model behind them. All patches of an image act on the same predictions, so their errors
are summed before they are squared (`UnitErrors.joint`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prismaquant.calibration.journal import Journal
from prismaquant.calibration.layer import probe_layer
from prismaquant.calibration.settings import lacks
from prismaquant.calibration.threads import torch_threads
from prismaquant.errors import DataError
from prismaquant.files.fingerprint import fingerprint
from prismaquant.model.kept import NO_LAYER
from prismaquant.model.towers import is_of_tower
from prismaquant.streaming import walk
from prismaquant.streaming.samples import Samples

if TYPE_CHECKING:
    from prismaquant.calibration.settings import Settings
    from prismaquant.files.sensitivity import Sensitivity
    from prismaquant.model import Model
    from prismaquant.progress import Progress
    from prismaquant.streaming import Spool
    from prismaquant.streaming.samples import Sample

__all__ = ["SampleDraw", "deal", "probe_towers"]

_LOG = logging.getLogger("prismaquant")


@dataclass(frozen=True, slots=True)
class SampleDraw:
    """Disjoint samples, for what `Draw` has windows for.

    Attributes
    ----------
    model
        The model with the units of its towers (`with_towers`), and no others outside of its layers.
    """

    model: Model
    statistics: Sequence[Sample]
    ranges: Sequence[Sample]
    prices: Sequence[Sample]

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Tokens of each."""
        statistics, ranges, prices = (
            sum(sample.ids.size for sample in part) for part in (self.statistics, self.ranges, self.prices)
        )
        return statistics, ranges, prices

    @property
    def fingerprints(self) -> tuple[str, str]:
        """Of what is solved with, and of what is priced with."""
        solved = fingerprint(sample.fingerprint.encode() for sample in self.statistics)
        return solved, fingerprint(sample.fingerprint.encode() for sample in (*self.ranges, *self.prices))

    def describe(self, outline: Sensitivity) -> Sensitivity:
        """``outline`` with what is said of samples in it."""
        solved, priced = self.fingerprints
        prices = self.prices or self.statistics  # in a preview
        return replace(
            outline,
            tower_data=solved,
            tower_tokens=_counted(self.statistics),
            tower_price_data=priced if self.prices else solved,
            tower_price_tokens=_counted(prices),
            tower_price_samples=len(prices),
        )


def deal(model: Model, samples: Sequence[Sample], *, preview: bool, seed: int) -> SampleDraw:
    """A quarter for the prices, a sixteenth for the ranges of inputs if there are enough, the others for statistics.

    Two for the prices if there are three or more: one alone says nothing of their errors.

    Raises
    ------
    DataError
        There are not enough samples.
    """
    least = 1 if preview else 2
    if len(samples) < least:
        raise DataError(
            f"has {len(samples)} samples, at least {least} are needed",
            where="tower_data",
            hint="one in four sets the prices, which want 8 or more",
        )
    prices = 0 if preview else max(min(2, len(samples) - 1), len(samples) // 4)
    ranges = 0 if preview else len(samples) // 16
    order = np.random.default_rng([seed, 2]).permutation(len(samples)).tolist()
    cuts = (0, prices, prices + ranges, len(samples))
    priced, ranged, solved = (
        tuple(samples[number] for number in sorted(order[begin:end])) for begin, end in pairwise(cuts)
    )
    return SampleDraw(model, solved, ranged, priced)


def probe_towers(
    draw: SampleDraw,
    measured: Sensitivity,
    settings: Settings,
    *,
    seed: int = 0,
    journal: Path | None = None,
    spool: Spool | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress,
) -> Sensitivity:
    """``measured`` with the units of towers behind its own; their statistics take one sampled residual per sample.

    Units that no sample reaches (those of a tower for audio, where all samples are images) are left out, and logged.

    Parameters
    ----------
    measured
        Of the same model; `SampleDraw.describe` has seen it.
    journal, spool, device, threads
        As in `probe`.

    Raises
    ------
    DataError
        The model does not take a sample, or no sample reaches a unit.
    ModelError, NumericError
        As `prismaquant.streaming.walk`.
    """
    model = draw.model
    units = [unit for unit in model.units if is_of_tower(model, unit)]
    menu = tuple(scheme.name for scheme in settings.menu)
    entries = None if journal is None else Journal(journal / "towers", measured.outline, menu)
    found = None if entries is None else entries.get(NO_LAYER)
    names = set() if found is None else {unit.name for unit in found.units}
    if found is None or any(lacks(unit, settings) for unit in units if unit.name in names):
        parts = {"statistics": Samples(draw.statistics)}
        if draw.ranges and any(scheme.activations == "nvfp4" for scheme in settings.menu):
            parts["ranges"] = Samples(draw.ranges)
        if draw.prices:
            parts["prices"] = Samples(draw.prices, measured.price_probes)
        else:
            parts = {"preview": parts["statistics"]}
        layers = range(model.num_layers)
        visits = walk(
            model, list(parts.values()), seed=seed, skip=layers, spool=spool, device=device, progress=progress
        )
        with torch_threads(threads), closing(visits):
            found = probe_layer(model, measured.outline, units, visits, list(parts), settings)
        found = replace(
            found,
            units=tuple(replace(unit, tower=True) for unit in found.units),
            price_sums={
                name: sums.reshape(len(sums), measured.tower_price_samples, -1).mean(axis=2)  # over the probes
                for name, sums in found.price_sums.items()
            },
        )
        if entries is not None:
            entries.put(NO_LAYER, found)
    if not found.units:
        raise DataError("no sample reaches a tower", where="tower_data", hint="give samples with images or audio")
    names = {unit.name for unit in found.units}
    for unit in units:
        if unit.name not in names:
            _LOG.info("%s: no sample reaches it, it stays as it is", unit.name)
    return replace(
        measured,
        units=(*measured.units, *found.units),
        fisher_rows=measured.fisher_rows | found.fisher_rows,
        price_sums=measured.price_sums | found.price_sums,
    )


def _counted(samples: Sequence[Sample]) -> int:
    """Tokens whose predictions count."""
    return sum(int(sample.counted.sum()) for sample in samples)
