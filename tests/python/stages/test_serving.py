"""What a plan takes of a device: the KV cache of every kind of layer, the bytes read per token, what is left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prismaquant.errors import ArgumentError, BudgetError, ModelError
from prismaquant.model import Architecture
from prismaquant.model.architectures import find_architecture
from prismaquant.model.kv_cache import layer_caches
from prismaquant.planning import Request, outlook
from prismaquant.planning.serving import parse_context
from support.hand_made import model_of, plan, sensitivity_of

SHAPE = (64, 128)
LLAMA = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "vocab_size": 1000,
}
PRICES = {"NVFP4A16": 1.0, "FP8_DYNAMIC": 0.5, "BF16": 0.0}


def _caches(config, layers):
    return layer_caches(config, find_architecture(config, "config.json"), layers, "config.json")


def test_full_attention_keeps_keys_and_values_of_its_own_heads():
    (layer,) = _caches(LLAMA, 1)
    assert (layer.kind, layer.elements, layer.heads) == ("full", 2 * 2 * 64, 2)
    (layer,) = _caches({**LLAMA, "head_dim": 128, "num_key_value_heads": None}, 1)
    assert layer.elements == 2 * 8 * 128


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        ({"model_type": "mistral", "sliding_window": 100}, ["sliding"] * 4),
        ({"model_type": "mistral", "sliding_window": None}, ["full"] * 4),
        ({"model_type": "qwen2", "sliding_window": 100, "use_sliding_window": False}, ["full"] * 4),
        (
            {"model_type": "qwen2", "sliding_window": 100, "use_sliding_window": True, "max_window_layers": 3},
            ["full", "full", "full", "sliding"],
        ),
        ({"model_type": "gpt_oss", "sliding_window": 128}, ["sliding", "full", "sliding", "full"]),
        (
            {"model_type": "gemma3_text", "sliding_window": 512, "layer_types": ["full_attention"] * 4},
            ["full"] * 4,
        ),
        ({"model_type": "gemma3_text", "sliding_window": 512}, ["sliding"] * 4),
    ],
)
def test_windows_are_where_config_or_architecture_put_them(config, kinds):
    found = _caches({**LLAMA, **config}, 4)
    assert [layer.kind for layer in found] == kinds
    assert {layer.window for layer in found if layer.kind == "sliding"} <= {config["sliding_window"]}


def test_every_sixth_layer_of_gemma_is_full():
    found = _caches({**LLAMA, "model_type": "gemma3_text", "sliding_window": 512}, 12)
    assert [number for number, layer in enumerate(found) if layer.kind == "full"] == [5, 11]


def test_a_latent_is_shared_by_all_heads():
    # DeepSeek-V3: 512 + 64 elements per token and layer (DeepSeek-V2 paper, table 1: (d_c + d_h^R) l).
    config = {**LLAMA, "model_type": "deepseek_v3", "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    (layer,) = _caches(config, 1)
    assert (layer.kind, layer.elements, layer.heads) == ("latent", 576, 1)


def test_linear_attention_keeps_a_state():
    config = {
        **LLAMA,
        "model_type": "qwen3_next",
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 8,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
    }
    found = _caches(config, 4)
    assert [layer.kind for layer in found] == ["recurrent"] * 3 + ["full"]
    assert found[0].state_bytes == 8 * 16 * 32 * 4 + (2 * 4 * 16 + 8 * 32) * 3 * 2


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"num_attention_heads": None, "num_key_value_heads": None}, "num_key_value_heads is None"),
        ({"num_key_value_heads": "two"}, "num_key_value_heads is 'two'"),
        ({"layer_types": ["convolution"]}, "layer 0 is of the type 'convolution'"),
    ],
)
def test_what_the_config_does_not_say_is_named(config, text):
    with pytest.raises(ModelError, match=text):
        _caches({**LLAMA, **config}, 1)


@pytest.mark.parametrize(("text", "tokens"), [("32k", 32768), (100, 100), ("1M", 2**20), (" 8192 ", 8192)])
def test_a_context_is_a_number_of_tokens(text, tokens):
    assert parse_context(text) == tokens


def _served(units=2, **config):
    return replace(model_of([[SHAPE]] * units, passthrough_bytes=2000), text_config={**LLAMA, **config})


def _footprint(model, **request):
    request = {"context": 1024, **request}
    return plan(model, sensitivity_of(model, [PRICES] * len(model.units)), bpw=16, **request).footprint


def test_the_cache_counts_tokens_sequences_and_bits():
    model = _served()
    (share,) = _footprint(model).cache
    assert (share.kind, share.layers, share.bytes) == ("full", 2, 2 * 1024 * 256 * 2)
    assert _footprint(model, kv="fp8").cache[0].bytes == 2 * 1024 * 256
    assert _footprint(model, kv="nvfp4").cache[0].bytes == 2 * 1024 * 256 * 9 // 16
    assert _footprint(model, concurrency=3).cache[0].bytes == 3 * share.bytes
    assert _footprint(model, context=1025).cache[0].bytes == share.bytes * 1040 // 1024  # blocks of 16 tokens
    assert _footprint(model, tensor_parallel=2).cache[0].bytes == share.bytes // 2
    assert _footprint(model, tensor_parallel=4).cache[0].bytes == share.bytes // 2  # two heads: copies from there on


def test_a_window_keeps_no_more_than_it_needs():
    model = replace(
        _served(sliding_window=64), architecture=Architecture("m", (), "u", "", (), layer_types=("sliding_attention",))
    )
    assert _footprint(model, context=48).cache[0].bytes == 2 * 48 * 256 * 2
    longer = _footprint(
        replace(model, text_config={**model.text_config, "max_position_embeddings": 2**20}), context="1M"
    )
    assert longer.cache[0].bytes == 2 * -(-(64 - 1 + 8192) // 16) * 16 * 256 * 2


def test_weights_are_resident_and_read():
    model = _served()
    found = _footprint(model)
    assert found.resident == found.read_per_token == 2 * 64 * 128 * 2 + 2000
    halved = _footprint(model, tensor_parallel=2)
    assert halved.resident == 64 * 128 * 2 + 2000
    assert halved.read_per_token == found.read_per_token


def test_of_experts_those_that_are_chosen_are_read():
    model = replace(
        model_of([[SHAPE] * 12] * 2, passthrough_bytes=2000), text_config={**LLAMA, "num_experts_per_tok": 1}
    )
    units = tuple(replace(unit, experts=4) for unit in model.units)
    assert _footprint(replace(model, units=units)).read_per_token == 2 * 12 * 64 * 128 * 2 // 4 + 2000


def test_a_device_leaves_room_for_cache_engine_and_weights():
    model = _served()
    found = _footprint(model, fit="10MB", context=1024, reserve="1MB")
    assert (found.memory, found.activations) == (10_000_000, 1_000_000)
    assert found.left == 9_200_000 - found.resident - found.cache[0].bytes - 1_000_000
    assert _footprint(model, fit="GB10").memory == 128 * 10**9  # the device, not the family of that name
    named = _footprint(model, fit="RTX-4090")
    assert (named.memory, named.bandwidth) == (24 * 10**9, 1008 * 10**9)


def _fitted(model, **request):
    sensitivity = sensitivity_of(model, [PRICES] * len(model.units))
    return plan(model, sensitivity, context=1024, kv="fp8", **request)


def test_fit_is_a_budget_of_bytes():
    model = _served(4)
    beside = 4 * 1024 * 256 + 2000
    one_each = 2 * (64 * 64 + 64 * 8 + 4) + 2 * 64 * 128 * 2
    memory = -(-(beside + one_each) * 100 // 92)
    made = _fitted(model, fit=memory, reserve=0, schemes=["NVFP4A16", "BF16"])
    assert sorted(unit.scheme for unit in made.units) == ["BF16", "BF16", "NVFP4A16", "NVFP4A16"]
    assert made.footprint.left >= 0
    tighter = _fitted(model, fit=memory - 4, reserve=0, schemes=["NVFP4A16", "BF16"])
    assert sorted(unit.scheme for unit in tighter.units) == ["BF16", "NVFP4A16", "NVFP4A16", "NVFP4A16"]


def test_fit_beside_another_budget_keeps_both():
    model = _served(4)
    alone = _fitted(model, fit="1.2MB", reserve=0)
    both = _fitted(model, fit="1.2MB", reserve=0, bpw=5)
    assert both.bytes <= 5 * 4 * 64 * 128 / 8 < alone.bytes


def test_devices_in_parallel_hold_their_parts():
    model = _served(4)
    made = _fitted(model, fit="630kB", tensor_parallel=2, reserve=0)
    assert made.footprint.left >= 0
    assert made.lower_bound == pytest.approx(made.predicted_kl)
    assert made.bytes > sum(unit.bytes for unit in _fitted(model, schemes=["NVFP4A16"]).units)


def test_bytes_read_per_token_are_a_limit():
    model = _served(4)
    made = _fitted(model, max_read=40_000, schemes=["NVFP4A16", "BF16"])
    assert made.footprint.read_per_token <= 40_000
    assert made.budget is None
    assert [unit.scheme for unit in made.units].count("BF16") == 1
    with pytest.raises(BudgetError, match="5000 read per token: 3000 bytes are left for the units, the smallest"):
        _fitted(model, max_read=5000)


def test_too_little_memory_says_how_much_is_needed():
    model = _served()
    with pytest.raises(BudgetError, match=r"is below the minimum of a device of .*for the KV cache") as caught:
        _fitted(model, fit="100kB")
    needed = int(str(caught.value).partition("ask for at least fit ")[2].partition(",")[0])
    assert _fitted(model, fit=needed, schemes=["NVFP4A16", "FP8_DYNAMIC", "BF16"]).footprint.left >= 0


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"fit": "RTX-9999"}, "unknown device 'RTX-9999'; known: B300"),
        ({"fit": "hopper"}, "a family of devices; name a device or its memory"),
        ({"fit": "0GiB"}, "fit is 0GiB"),
        ({"context": "long"}, "context is 'long', expected a number of tokens"),
        ({"context": 5000}, "context is 5000 tokens; the model was made for up to 4096"),
        ({"kv": "fp9"}, "unknown kv dtype 'fp9'; known: bf16, fp8, nvfp4"),
        ({"concurrency": 0}, "concurrency is 0, expected at least 1"),
        ({"tensor_parallel": 0}, "tensor_parallel is 0"),
    ],
)
def test_wrong_arguments_are_refused(request_, text):
    with pytest.raises(ArgumentError, match=text):
        _footprint(_served(), **request_)


def test_without_prices_every_device_has_a_verdict():
    model = _served()
    found = outlook(model, Request())
    assert {place.verdict for place in found.places} == {"unquantized"}
    assert [place.name for place in found.places][:2] == ["B300", "B200"]
    by_name = {place.name: place for place in found.places}
    assert by_name["MI300X"].uniform == ("FP8_DYNAMIC", "BF16")
    assert found.maximum == 2 * 64 * 128 * 2


@pytest.mark.parametrize(
    ("bpw", "verdict", "uniform"),
    [
        (3, "impossible", ()),
        (5, "quantized", ("NVFP4",)),
        (9, "quantized", ("NVFP4", "FP8_DYNAMIC")),
        (16, "unquantized", ("NVFP4", "FP8_DYNAMIC", "BF16")),
    ],
)
def test_without_prices_a_budget_has_a_verdict(bpw, verdict, uniform):
    (place,) = outlook(_served(), Request(bpw=bpw)).places
    assert (place.verdict, place.uniform) == (verdict, uniform)
    assert place.bpw == bpw


def test_without_prices_devices_in_parallel_have_a_verdict():
    (place,) = outlook(_served(4), Request(fit="595kB", tensor_parallel=2, reserve=0, context=512)).places
    assert place.verdict == "quantized"
