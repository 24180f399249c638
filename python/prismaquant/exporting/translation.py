"""A recipe in the words of other tools, for people who stay with theirs: `translate`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prismaquant.errors import ArgumentError
from prismaquant.exporting.config import config_groups, ignored_names
from prismaquant.formats import BF16
from prismaquant.model.reasons import without_wrappers

if TYPE_CHECKING:
    from prismaquant.files.plan import Plan

__all__ = ["TOOLS", "translate"]


def translate(plan: Plan, tool: str) -> str:
    """``plan`` as the text that ``tool``, one of `TOOLS`, reads.

    Raises
    ------
    ArgumentError
        Unknown tool, or a Linear or scheme for which it has no word.
    """
    if tool not in TOOLS:
        raise ArgumentError(f"unknown tool {tool!r}", hint=f"known: dense, bitsandbytes, {', '.join(TOOLS)}")
    return TOOLS[tool](plan)


def _llm_compressor(plan: Plan) -> str:
    """A recipe file (YAML, of which JSON is a part) with the config groups that `export` would write."""
    groups = {
        name: {key: value for key, value in group.items() if key != "format"}
        for name, group in config_groups(plan.units).items()
    }
    modifier = {"ignore": ignored_names(plan.units), "config_groups": groups}
    return _json({"quant_stage": {"quant_modifiers": {"QuantizationModifier": modifier}}})


#: Arguments of the weight and of the input of a Linear in ModelOpt. -1 and -2 are axes, counted from the last.
_E2M1, _E4M3, _E8M0 = [2, 1], [4, 3], [8, 0]
_NVFP4 = {"num_bits": _E2M1, "block_sizes": {-1: 16, "type": "dynamic", "scale_bits": _E4M3}}
_MXFP4 = {"num_bits": _E2M1, "block_sizes": {-1: 32, "type": "dynamic", "scale_bits": _E8M0}}
_MXFP8 = {"num_bits": _E4M3, "block_sizes": {-1: 32, "type": "dynamic", "scale_bits": _E8M0}}
_CHANNEL_FP8 = {"num_bits": _E4M3, "axis": 0}
_TENSOR_FP8 = {"num_bits": _E4M3, "axis": None}
_MODELOPT: Mapping[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "NVFP4": (_NVFP4, _NVFP4),
    "NVFP4A16": (_NVFP4, None),
    "MXFP4": (_MXFP4, _MXFP4),
    "MXFP4A16": (_MXFP4, None),
    "W4A16": ({"num_bits": 4, "block_sizes": {-1: 128}}, None),
    "MXFP8": (_MXFP8, _MXFP8),
    "MXFP8A16": (_MXFP8, None),
    "FP8A16": (_CHANNEL_FP8, None),
    "FP8_DYNAMIC": (_CHANNEL_FP8, {"num_bits": _E4M3, "type": "dynamic", "block_sizes": {-1: None}}),
    "FP8_STATIC": (_TENSOR_FP8, _TENSOR_FP8),
    "FP8_BLOCK": (
        {"num_bits": _E4M3, "block_sizes": {-1: 128, -2: 128}},
        {"num_bits": _E4M3, "type": "dynamic", "block_sizes": {-1: 128}},
    ),
    "W8A8": ({"num_bits": 8, "axis": 0}, {"num_bits": 8, "type": "dynamic", "block_sizes": {-1: None}}),
}


def _modelopt(plan: Plan) -> str:
    """A quantization config (YAML): what no entry names stays as it is."""
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for linear, scheme in _linears(plan):
        for quantizer, arguments in zip(("weight", "input"), _MODELOPT[scheme], strict=True):
            if arguments is not None:
                name = f"{linear}.{quantizer}_quantizer"
                entries.append({"quantizer_name": name, "cfg": arguments, "enable": True})
    lines = (re.sub(r'"(-\d+)":', r"\1:", json.dumps(entry)) for entry in entries)
    return "quant_cfg:\n" + "".join(f"  - {line}\n" for line in lines) + "algorithm: max\n"


_INPUTS_16 = {"act_bits": 16}
_AUTO_ROUND: Mapping[str, dict[str, Any]] = {
    "NVFP4": {
        **{"bits": 4, "group_size": 16, "data_type": "nv_fp"},
        **{"act_bits": 4, "act_group_size": 16, "act_data_type": "nv_fp4_with_static_gs", "act_dynamic": True},
    },
    "NVFP4A16": {"bits": 4, "group_size": 16, "data_type": "nv_fp", **_INPUTS_16},
    "MXFP4": {
        **{"bits": 4, "group_size": 32, "data_type": "mx_fp"},
        **{"act_bits": 4, "act_group_size": 32, "act_data_type": "mx_fp", "act_dynamic": True},
    },
    "MXFP4A16": {"bits": 4, "group_size": 32, "data_type": "mx_fp", **_INPUTS_16},
    "W4A16": {"bits": 4, "group_size": 128, "data_type": "int", "sym": True, **_INPUTS_16},
    "MXFP8": {
        **{"bits": 8, "group_size": 32, "data_type": "mx_fp"},
        **{"act_bits": 8, "act_group_size": 32, "act_data_type": "mx_fp", "act_dynamic": True},
    },
    "MXFP8A16": {"bits": 8, "group_size": 32, "data_type": "mx_fp", **_INPUTS_16},
    "FP8A16": {"bits": 8, "group_size": -1, "data_type": "fp", **_INPUTS_16},
    "FP8_DYNAMIC": {
        **{"bits": 8, "group_size": -1, "data_type": "fp"},
        **{"act_bits": 8, "act_group_size": -1, "act_data_type": "fp", "act_dynamic": True},
    },
    "FP8_STATIC": {
        **{"bits": 8, "group_size": 0, "data_type": "fp"},
        **{"act_bits": 8, "act_group_size": 0, "act_data_type": "fp", "act_dynamic": False},
    },
    "FP8_BLOCK": {
        **{"bits": 8, "group_size": [128, 128], "data_type": "fp"},
        **{"act_bits": 8, "act_group_size": 128, "act_data_type": "fp", "act_dynamic": True},
    },
    "W8A8": {
        **{"bits": 8, "group_size": -1, "data_type": "int", "sym": True},
        **{"act_bits": 8, "act_group_size": -1, "act_data_type": "int", "act_dynamic": True},
    },
    BF16: {"bits": 16, "data_type": "fp", "act_bits": 16, "act_data_type": "fp"},
}


def _auto_round(plan: Plan) -> str:
    """A ``layer_config`` (JSON)."""
    return _json({linear: _AUTO_ROUND[unit.scheme] for unit in plan.units for linear in unit.linears})


#: What stands behind the layer number in a name -> the tensor's name in GGUF (gguf-py ``tensor_mapping.py``). Experts
#: have no number there: a bank is one tensor per projection.
_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_b_proj": "attn_kv_b",
    "linear_attn.in_proj_qkvz": "ssm_in",
    "linear_attn.in_proj_ba": "ssm_ba",
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.out_proj": "ssm_out",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
    "block_sparse_moe.experts.w1": "ffn_gate_exps",
    "block_sparse_moe.experts.w3": "ffn_up_exps",
    "block_sparse_moe.experts.w2": "ffn_down_exps",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}

#: The type of GGUF with the same elements where there is one, else the one of the same size.
_GGUF_TYPES = {
    **dict.fromkeys(("NVFP4", "NVFP4A16"), "nvfp4"),
    **dict.fromkeys(("MXFP4", "MXFP4A16"), "mxfp4"),
    "W4A16": "q4_0",
    **dict.fromkeys(("MXFP8", "MXFP8A16", "FP8A16", "FP8_DYNAMIC", "FP8_STATIC", "FP8_BLOCK", "W8A8"), "q8_0"),
    BF16: "bf16",
}


def _llama_cpp(plan: Plan) -> str:
    """What ``llama-quantize --tensor-type-file`` reads: in each line an expression for names of tensors, and a type."""
    lines: dict[str, str] = {}
    for unit in plan.units:
        for linear in unit.linears:
            lines[f"^{_gguf_name(linear)}[.]weight$"] = _GGUF_TYPES[unit.scheme]
    return "".join(f"{name}={type}\n" for name, type in lines.items())


def _gguf_name(linear: str) -> str:
    path = without_wrappers(linear)
    if path == ["lm_head"]:
        return "output"
    tensor = _GGUF_NAMES.get(".".join(part for part in path[2:] if not part.isdecimal()))
    if path[0] != "layers" or tensor is None:
        raise ArgumentError(f"nothing is known of what GGUF calls {linear}")
    return f"blk[.]{path[1]}[.]{tensor}"


def _linears(plan: Plan) -> list[tuple[str, str]]:
    """Name and scheme of every Linear that is quantized."""
    return [(linear, unit.scheme) for unit in plan.units if unit.scheme != BF16 for linear in unit.linears]


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"


#: Name of the tool -> what writes its text.
TOOLS: Mapping[str, Callable[[Plan], str]] = {
    "llm-compressor": _llm_compressor,
    "modelopt": _modelopt,
    "auto-round": _auto_round,
    "llama.cpp": _llama_cpp,
}
