"""transformers and bitsandbytes load the NF4 folder on the processor and decode it to the values that we decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import prismaquant as pq
from prismaquant.evaluation.load import load as load_in_float32
from prismaquant.model import Linear
from prismaquant.streaming.model_class import model_class, read_config
from support.tiny_models import ARCHITECTURES, MULTIMODAL, build

bitsandbytes: Any = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """As a user would."""
    model, info = model_class(read_config(folder)).from_pretrained(folder, dtype="auto", output_loading_info=True)
    return model, {kind: found for kind, found in info.items() if found}


def quantized_names(model: Any) -> set[str]:
    """As in the folder, whatever transformers calls them: without the names of what is around the language model."""
    kind = bitsandbytes.nn.Linear4bit
    return {stripped(name) for name, module in model.named_modules() if isinstance(module, kind)}


def stripped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("model", "language_model"))


def expected(model: pq.Model, linear: Linear) -> torch.Tensor:
    weight = model.read_weight(linear)
    codec = pq.get_codec("nf4_double")
    decoded = codec.decode(codec.encode(weight.reshape(-1, 64)))
    return torch.from_numpy(decoded.reshape(weight.shape)).to(torch.bfloat16)


@pytest.mark.parametrize("name", [name for name in (*ARCHITECTURES, *MULTIMODAL) if "moe" not in name])
def test_every_linear_of_the_layers_is_quantized_and_no_other(name: str, tmp_path: Path) -> None:
    source = pq.open(build(name, tmp_path / "source", tokenizer=True))
    pq.convert(source, tmp_path / "nf4", to="bitsandbytes")
    loaded, problems = load(tmp_path / "nf4")
    assert problems == {}
    assert quantized_names(loaded) == {stripped(linear.name) for linear in source.linears()}
    assert loaded(torch.arange(8)[None]).logits.isfinite().all()
    weights = {stripped(key): value for key, value in loaded.dequantize().state_dict().items()}
    for linear in source.linears():
        assert torch.equal(weights[f"{stripped(linear.name)}.weight"], expected(source, linear)), linear.name
    assert pq.verify(tmp_path / "nf4").ok


def test_blocks_run_over_rows_and_a_weight_of_parts_of_blocks_stays(tmp_path: Path) -> None:
    source = pq.open(build("llama", tmp_path / "source", hidden_size=60, intermediate_size=100))
    pq.convert(source.path, tmp_path / "nf4", to="bitsandbytes")
    loaded, problems = load(tmp_path / "nf4")
    assert problems == {}
    fitting = [linear for linear in source.linears() if linear.rows * linear.columns % 64 == 0]
    assert quantized_names(loaded) == {stripped(linear.name) for linear in fitting}
    assert {linear.name.rpartition(".")[2] for linear in fitting} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    weights = loaded.dequantize().state_dict()
    for linear in fitting:
        assert torch.equal(weights[f"{linear.name}.weight"], expected(source, linear)), linear.name


def test_it_is_evaluated_with_the_weights_that_it_stands_for(tiny_llama: Path, tmp_path: Path) -> None:
    source = pq.open(tiny_llama)
    pq.convert(source, tmp_path / "nf4", to="bitsandbytes")
    weights = load_in_float32(tmp_path / "nf4").state_dict()
    for linear in source.linears():
        assert torch.equal(weights[f"{linear.name}.weight"], expected(source, linear).float()), linear.name
