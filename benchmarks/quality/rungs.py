"""The rungs of the quality ladder: chains of solver stages, from round-to-nearest to all there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from prismaquant.solver import CoordinateDescent, Gptq, Rtn, ScaleSweep, Shift, TwoSided
from prismaquant.solver.stages import Stage

__all__ = ["LADDERS", "Rung", "rung_called"]


@dataclass(frozen=True)
class Rung:
    """One chain.

    Attributes
    ----------
    name
        As it stands in the table.
    stages
        What `prismaquant.solve` is given as its preset: stages or the name of a preset.
    goal
        Ratio of KL to the reference of the ladder that is to be reached, where there is one.
    is_reference
        Whether it is the reference; one rung of a ladder is.
    is_shifted
        Whether units are solved one after the other, each for the inputs behind those before it.
    """

    name: str
    stages: str | Sequence[Stage]
    goal: float | None = None
    is_reference: bool = False
    is_shifted: bool = False

    @property
    def uses_output_gram(self) -> bool:
        """Whether rows are coupled by the gradients of the outputs."""
        return isinstance(self.stages, str) or any(isinstance(s, TwoSided) for s in self.stages)

    @property
    def uses_gram(self) -> bool:
        """Whether anything looks at the inputs."""
        if isinstance(self.stages, str):
            return True
        return any(s.use_gram_diagonal if isinstance(s, ScaleSweep) else not isinstance(s, Rtn) for s in self.stages)


_IN_LOOP = Gptq(order="group_activation", scales="in_loop")
_GIVEN = Gptq(order="activation", scales="given")
_DESCENT = CoordinateDescent()
_BLOCKS = 128

# Goals: what the recipes were measured to reach on a model of this size with fixed damping, and 5 % of slack.
_NVFP4 = (
    Rung("rtn", [Rtn()]),
    Rung("four over six", [ScaleSweep(four_over_six=True)], 1.05 * 1.74),
    Rung("scale sweep", [ScaleSweep()], 1.05 * 1.573),
    Rung("scale sweep, weighed by diag(H)", [ScaleSweep(use_gram_diagonal=True)], 1.05 * 1.473),
    Rung("GPTQ, amax scales, natural order", [Rtn(), Gptq(order="natural", scales="given")], 1.05 * 1.360),
    Rung("GPTQ, amax scales, activation order", [Rtn(), _GIVEN], 1.05 * 1.224),
    Rung("GPTQ, swept scales, natural order", [ScaleSweep(), Gptq(order="natural", scales="given")], 1.05 * 1.088),
    Rung("GPTQ, swept scales, activation order", [ScaleSweep(), _GIVEN], is_reference=True),
    Rung("GPTQ, scales in the loop, natural order", [Gptq(order="natural", scales="in_loop")], 1.05 * 0.903),
    Rung("GPTQ, scales in the loop, group order", [_IN_LOOP], 1.05 * 0.876),
    Rung("+ coordinate descent", [_IN_LOOP, CoordinateDescent(refit_scales=False)], 1.05 * 0.818),
    Rung("+ coordinate descent and scale refit", [_IN_LOOP, _DESCENT], 1.05 * 0.812),
    Rung("+ two-sided, blocks of 128, 1 pass", [_IN_LOOP, _DESCENT, TwoSided(block=_BLOCKS, passes=1)], 1.05 * 0.724),
    Rung("+ two-sided, blocks of 128, 3 passes", [_IN_LOOP, _DESCENT, TwoSided(block=_BLOCKS)], 1.05 * 0.703),
    Rung("+ two-sided, all rows, 1 pass", [_IN_LOOP, _DESCENT, TwoSided(passes=1)], 1.05 * 0.686),
    Rung("+ two-sided, all rows, 3 passes", [_IN_LOOP, _DESCENT, TwoSided()], 0.66),
    Rung("shift, GPTQ, swept scales, activation order", [Shift(), ScaleSweep(), _GIVEN], 1.05 * 0.825, is_shifted=True),
    Rung("preset fast, with shift", "fast", is_shifted=True),
    Rung("preset best, with shift", "best", 0.57, is_shifted=True),
)
_MXFP4 = (
    Rung("rtn", [Rtn()]),
    Rung("scale sweep", [ScaleSweep()], 1.05 * 1.856),
    Rung("GPTQ, swept exponents, activation order", [ScaleSweep(), _GIVEN], is_reference=True),
    Rung("GPTQ, exponents in the loop, group order", [_IN_LOOP], 1.05 * 1.042),
    Rung("+ coordinate descent and scale refit", [_IN_LOOP, _DESCENT], 1.05 * 0.915),
    Rung("+ two-sided, blocks of 128, 3 passes", [_IN_LOOP, _DESCENT, TwoSided(block=_BLOCKS)], 1.05 * 0.775),
    Rung("+ two-sided, all rows, 3 passes", [_IN_LOOP, _DESCENT, TwoSided()], 0.75),
    Rung("preset best, with shift", "best", 1.05 * 0.56, is_shifted=True),
)
_OTHERS = (
    Rung("rtn", [Rtn()], is_reference=True),
    Rung("scale sweep", [ScaleSweep()]),
    Rung("GPTQ", [Gptq()]),
    Rung("GPTQ + coordinate descent", [Gptq(), _DESCENT]),
    Rung("+ two-sided, all rows, 3 passes", [Gptq(), _DESCENT, TwoSided()], 0.40),
    Rung("preset best, with shift", "best", is_shifted=True),
)
_INT4 = tuple(replace(rung, goal=None) for rung in _OTHERS)

#: Rungs by the name of their format.
LADDERS = {
    "nvfp4": _NVFP4,
    "mxfp4": _MXFP4,
    "mxfp8_e4m3": _OTHERS,
    "fp8_e4m3_channel": _OTHERS,
    "int4_g32": _INT4,
}


def rung_called(format: str, name: str) -> Rung:
    """A rung of the ladder of a format."""
    return next(rung for rung in LADDERS[format] if rung.name == name)
