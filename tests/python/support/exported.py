"""`export_mixed`: a folder with every scheme of the menu; `expect`: what `verify` must say of it once it is broken."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from prismaquant.exporting.report import VerifyReport
from prismaquant.exporting.run import export
from prismaquant.files.plan import Plan
from prismaquant.formats import get_scheme
from prismaquant.model import Model, open_model
from prismaquant.planning import Request, plan
from prismaquant.planning.candidates import unit_bytes
from support.hand_made import sensitivity_of

__all__ = ["A16", "FP8", "KEPT", "W4A4", "expect", "export_mixed"]

_SCHEMES = (
    {"qkv_proj": "NVFP4", "o_proj": "FP8_DYNAMIC", "gate_up_proj": "NVFP4A16", "down_proj": "FP8_DYNAMIC"},
    {"qkv_proj": "FP8_DYNAMIC", "o_proj": "NVFP4A16", "gate_up_proj": "BF16", "down_proj": "NVFP4A16"},
)
#: One Linear of each scheme.
W4A4 = "model.layers.0.self_attn.q_proj"
A16 = "model.layers.0.mlp.gate_proj"
FP8 = "model.layers.0.mlp.down_proj"
KEPT = "model.layers.1.mlp.up_proj"


def _mixed_plan(model: Model) -> Plan:
    made = plan(model, None, Request(schemes=["NVFP4A16"]))
    units = []
    for unit, planned in zip(model.units, made.units, strict=True):
        scheme = _SCHEMES[unit.layer][unit.name.rpartition(".")[2]]
        units.append(replace(planned, scheme=scheme, bytes=unit_bytes(unit, get_scheme(scheme))))
    return replace(made, units=tuple(units), bytes=sum(unit.bytes for unit in units))


def export_mixed(source: Path, out: Path) -> Path:
    """Export the two-layer model ``source`` to ``out``, in several shards."""
    model = open_model(source)
    sensitivity = sensitivity_of(model, [{}] * len(model.units))
    export(model, _mixed_plan(model), out, sensitivity=sensitivity, shard_size=300_000)
    assert len(list(out.glob("*.safetensors"))) > 2
    return out


def expect(report: VerifyReport, rule: str, text: str) -> None:
    """``report`` has a failure of ``rule`` whose words match ``text``."""
    assert not report.ok
    found = [check for check in report.failures if check.rule == rule and re.search(text, str(check))]
    assert found, f"no failure of rule {rule} with {text!r} among: " + "; ".join(map(str, report.failures))
