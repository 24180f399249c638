"""The inputs of experts, rounded as the schemes of a folder say, by compressed-tensors.

transformers runs the experts that `decoded_experts` prepares as plain ones, on inputs as they are; engines do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from prismaquant.evaluation.experts import CONFIG, SECTION, matches
from prismaquant.model import Model, Unit
from prismaquant.streaming.experts import find_bank

__all__ = ["rounded_expert_inputs"]

_Round = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def rounded_expert_inputs(model: nn.Module, source: Model, folder: Path) -> Iterator[None]:
    """Inside, the experts of ``model``, which was loaded from ``folder``, see their inputs as engines round them.

    Parameters
    ----------
    source
        The model that ``folder`` was made from: it says what its experts are.

    Raises
    ------
    ModelError
        The experts are of a kind that is not known.
    """
    section = json.loads((folder / CONFIG).read_bytes()).get(SECTION) or {}
    groups = list(section.get("config_groups", {}).values())
    with ExitStack() as stack:
        for unit in source.units if groups else ():
            rounded = _rounding(unit, groups, folder) if unit.experts else None
            if rounded is not None:
                bank = find_bank(model.get_submodule(unit.module), unit)

                def forward(
                    hidden: torch.Tensor,
                    chosen: torch.Tensor,
                    weights: torch.Tensor,
                    bank: Any = bank,
                    rounded: _Round = rounded,
                ) -> torch.Tensor:
                    output: torch.Tensor = bank.run(hidden, chosen, weights, {}, rounded)
                    return output

                bank.module.forward = forward
                stack.callback(delattr, bank.module, "forward")
        yield


def _rounding(unit: Unit, groups: list[dict[str, Any]], folder: Path) -> _Round | None:
    """What is done to the inputs of the bank ``unit``; ``None``: nothing."""
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils.helpers import compute_dynamic_scales_and_zp

    name = unit.linears[0].name
    found = [group for group in groups if any(matches(target, name) for target in group["targets"])]
    asked = found[0].get("input_activations") if found else None
    if asked is None:
        return None
    arguments = QuantizationArgs.model_validate(asked)
    divisor = _largest(unit, "input_global_scale", folder)
    static = None if arguments.dynamic else _largest(unit, "input_scale", folder)

    def rounded(x: torch.Tensor) -> torch.Tensor:
        if not len(x):
            return x
        x = x[None]  # the second axis is that of the tokens
        scale, zero = static, None
        if arguments.dynamic:
            scale, zero = compute_dynamic_scales_and_zp(x, arguments, nn.Identity(), global_scale=divisor)
        output: torch.Tensor = fake_quantize(x, scale, zero, arguments, global_scale=divisor)[0]
        return output

    return rounded


def _largest(unit: Unit, suffix: str, folder: Path) -> torch.Tensor | None:
    """Of the scalars of that name, float32 ``[1]``: engines have one for all experts of a bank; ``None``: none."""
    wanted = {f"{linear.name}.{suffix}" for linear in unit.linears}
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found += [file.get_tensor(name).float().reshape(()) for name in wanted.intersection(file.keys())]
    return torch.stack(found).max().reshape(1) if found else None
