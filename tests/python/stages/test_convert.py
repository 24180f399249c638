"""`convert`: a plain folder with the weights that the quantized one stands for."""

from __future__ import annotations

import json

import numpy as np
import pytest

import prismaquant as pq
from prismaquant.errors import ArgumentError, ModelError, RefusedError
from prismaquant.formats import BF16, list_schemes
from support.plans import cycled, sensitivity_of, spread
from support.tiny_models import build


@pytest.fixture(scope="module")
def source(tiny_llama):
    return pq.open(tiny_llama)


@pytest.fixture(scope="module")
def quantized(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("convert") / "out"
    pq.export(source, spread(source, list_schemes()), out, sensitivity=sensitivity_of(source), shard_size=10**6)
    return out


def _error(weight, decoded):
    return float(np.square(weight - decoded).sum() / np.square(weight).sum())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_scheme_decodes_to_a_plain_weight(source, quantized, tmp_path, dtype):
    assert pq.convert(quantized, tmp_path / "dense", dtype=dtype) == tmp_path / "dense"
    dense = pq.open(tmp_path / "dense")  # refuses what is quantized
    assert "quantization_config" not in dense.config
    assert dense.config["dtype"] == dtype
    assert dense.tensors.keys() == source.tensors.keys()
    manifest = json.loads((quantized / "prismaquant.json").read_text())
    scheme_of = {linear["name"]: linear["scheme"] for linear in manifest["linears"]}
    for original, linear in zip(source.linears(), dense.linears(), strict=True):
        scheme = scheme_of[linear.name]
        error = _error(source.read_weight(original), dense.read_weight(linear))
        assert error == 0 if scheme == BF16 else 0 < error < 0.02, (linear.name, scheme)
    for name in source.passthrough:
        assert np.array_equal(source.read_bytes(name), dense.read_bytes(name))
    assert pq.verify(tmp_path / "dense").ok
    assert (tmp_path / "dense" / "tokenizer.json").read_bytes() == (quantized / "tokenizer.json").read_bytes()


def test_the_weights_are_those_that_the_codec_decodes(source, tmp_path):
    pq.export(source, cycled(source, ["NVFP4A16"]), tmp_path / "out")
    pq.convert(tmp_path / "out", tmp_path / "dense")
    dense = pq.open(tmp_path / "dense")
    linear = next(source.linears())
    unit = source.units[0]
    scale = pq.shared_global_scale([source.read_weight(x) for x in unit.linears], "nvfp4", preset="scale_sweep")
    solved = pq.solve(source.read_weight(linear), "nvfp4", preset="scale_sweep", global_scale=scale).quantized
    expected = pq.get_codec("nvfp4").decode(solved)
    rounded = pq.get_codec("bf16").decode(pq.get_codec("bf16").encode(expected))
    assert np.array_equal(dense.read_weight(next(dense.linears())), rounded)


def test_what_is_not_quantized_or_not_known_is_refused(source, quantized, tmp_path):
    with pytest.raises(ModelError, match="is not quantized"):
        pq.convert(source.path, tmp_path / "dense")
    with pytest.raises(ModelError, match="does not exist"):
        pq.convert(tmp_path / "none", tmp_path / "dense")
    with pytest.raises(ArgumentError, match="dtype is 'int8'; accepted: bfloat16, float16"):
        pq.convert(quantized, tmp_path / "dense", dtype="int8")
    pq.export(source, cycled(source, ["NVFP4A16"]), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_00"]["weights"]["num_bits"] = 3
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"q_proj: has no known scheme"):
        pq.convert(tmp_path / "out", tmp_path / "dense")
    assert not (tmp_path / "dense").exists()


def test_an_existing_folder_is_kept(quantized, tmp_path):
    (tmp_path / "dense").mkdir()
    (tmp_path / "dense" / "mine.txt").write_text("mine")
    with pytest.raises(RefusedError, match="exists"):
        pq.convert(quantized, tmp_path / "dense")
    with pytest.raises(RefusedError, match="is not a model folder"):
        pq.convert(quantized, tmp_path / "dense", force=True)
    assert (tmp_path / "dense" / "mine.txt").read_text() == "mine"


def test_a_bias_is_kept(tmp_path):
    source = pq.open(build("qwen2", tmp_path / "source"))
    pq.export(source, cycled(source, ["FP8_DYNAMIC"]), tmp_path / "out")
    pq.convert(tmp_path / "out", tmp_path / "dense")
    assert pq.open(tmp_path / "dense").tensors.keys() == source.tensors.keys()
