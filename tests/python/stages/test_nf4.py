"""`convert --to bitsandbytes`: a whole model in NF4 with double quantization; its readers are in `interop`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import deserialize

import prismaquant as pq
from prismaquant.cli import main
from prismaquant.errors import ModelError, RefusedError
from support.tiny_models import build


def stored_in(folder: Path) -> dict[str, bytes]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: bytes(tensor["data"]) for file in files for name, tensor in deserialize(file.read_bytes())}


def test_names_dtypes_and_bytes_of_a_linear(tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "nf4"
    assert main(["convert", str(tiny_llama), "-o", str(out), "--to", "bitsandbytes", "--shard-size", "1MB"]) == 0
    source = pq.open(tiny_llama)
    linear = next(source.linears())
    parts = stored_in(out)
    quantized = pq.get_codec("nf4_double").encode(source.read_weight(linear))
    assert quantized.scales is not None
    assert quantized.extra is not None
    assert parts[f"{linear.name}.weight"] == quantized.codes.tobytes()
    assert parts[f"{linear.name}.weight.absmax"] == quantized.scales.tobytes()
    assert parts[f"{linear.name}.weight.nested_absmax"] == quantized.extra[0, 1:].tobytes()
    assert parts[f"{linear.name}.weight.quant_map"] == pq.get_codec("nf4").values.tobytes()
    state = json.loads(parts[f"{linear.name}.weight.quant_state.bitsandbytes__nf4"])
    assert state["shape"] == [linear.rows, linear.columns]
    assert state["nested_offset"] == float(quantized.extra[0, 0])
    assert len(list(out.glob("*.safetensors"))) > 1


def test_all_else_is_copied_and_named(tiny_llama: Path, tmp_path: Path) -> None:
    source = pq.open(tiny_llama)
    pq.convert(source, tmp_path / "nf4", to="bitsandbytes")
    stored = stored_in(tmp_path / "nf4")
    for name in source.passthrough:
        assert stored[name] == source.read_bytes(name).tobytes()
    assert (tmp_path / "nf4" / "tokenizer.json").read_bytes() == (tiny_llama / "tokenizer.json").read_bytes()
    assert (tmp_path / "nf4" / "SHA256SUMS").is_file()
    section = json.loads((tmp_path / "nf4" / "config.json").read_text())["quantization_config"]
    assert section["llm_int8_skip_modules"] == ["lm_head"]
    assert pq.verify(tmp_path / "nf4").ok


def test_a_tower_is_left_out_under_any_prefix(tmp_path: Path) -> None:
    source = build("qwen3_vl", tmp_path / "source", tokenizer=True)
    pq.convert(source, tmp_path / "nf4", to="bitsandbytes")
    section = json.loads((tmp_path / "nf4" / "config.json").read_text())["quantization_config"]
    assert section["llm_int8_skip_modules"] == ["lm_head", "visual", ".*[.]visual"]


def test_experts_and_quantized_models_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    mixture = build("qwen3_moe", tmp_path / "mixture")
    with pytest.raises(ModelError, match="experts would stay as they are; quantize them to NVFP4A16"):
        pq.convert(mixture, tmp_path / "out", to="bitsandbytes")
    pq.convert(tiny_llama, tmp_path / "nf4", to="bitsandbytes")
    with pytest.raises(ModelError, match="quantized already"):
        pq.convert(tmp_path / "nf4", tmp_path / "out", to="bitsandbytes")
    with pytest.raises(RefusedError, match="exists"):
        pq.convert(tiny_llama, tmp_path / "nf4", to="bitsandbytes")
    assert not (tmp_path / "out").exists()
