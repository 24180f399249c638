"""What vLLM's own model computes from a written folder, with plain multiplications in the place of its kernels.

    python vllm_forward.py FOLDER TOKENS.json      (in an environment with vLLM; see tests/engines.sh)

``TOKENS.json`` is a list of token ids. Writes their log probabilities, float32 ``[tokens, vocabulary]``, beside the
folder (``FOLDER.npy``) and prints its path as JSON. The model, its loader and the choice of schemes are vLLM's. What a
scheme multiplies by is computed from vLLM's parameters by the definition of its format, its inputs are rounded by
compressed-tensors. In torch, too, are attention, linear attention (by its recurrence), routers and experts.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils.helpers import compute_dynamic_scales_and_zp
from torch.nn.functional import conv1d, linear, normalize, pad, scaled_dot_product_attention, silu, softplus
from vllm_host import loaded, without_kernels, without_operators

_E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def codes_of(layer: Any) -> torch.Tensor:
    """Values of the elements, not yet scaled, ``[rows, columns]``."""
    packed = getattr(layer, "weight_packed", None)
    if packed is None:
        return layer.weight.float()
    if packed.dtype == torch.uint8:
        return _E2M1[torch.stack((packed & 15, packed >> 4), -1).flatten(-2).long()]
    return torch.stack([(packed >> shift & 15) - 8 for shift in range(0, 32, 4)], -1).flatten(-2).float()


def weight_of(layer: Any) -> torch.Tensor:
    """The weight that the parameters of ``layer`` stand for, ``[rows, columns]``."""
    codes, scale = codes_of(layer), layer.weight_scale.data
    scale = torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float()
    if scale.ndim < 2:
        scale = scale.flatten()[:1, None]  # one for the tensor, which siblings share
    for axis in (0, 1):  # blocks may be cut off at the end
        width = -(-codes.shape[axis] // scale.shape[axis])
        width = 128 if axis == 0 and 1 < scale.shape[0] < codes.shape[0] else width
        scale = scale.repeat_interleave(width, axis).narrow(axis, 0, codes.shape[axis])
    divisor = getattr(layer, "weight_global_scale", None)
    return codes * scale / (1.0 if divisor is None else divisor.max())


def rounded(x: torch.Tensor, layer: Any, arguments: Any) -> torch.Tensor:
    """The inputs as the scheme rounds them."""
    if arguments is None:
        return x
    divisor = getattr(layer, "input_global_scale", None)
    divisor = None if divisor is None else divisor.max().reshape(1)
    x = x[None]  # compressed-tensors takes the second axis for that of the tokens
    if arguments.dynamic:
        scale, zero = compute_dynamic_scales_and_zp(x, arguments, layer, global_scale=divisor)
    else:
        scale, zero = layer.input_scale.max().reshape(1), None
    return fake_quantize(x, scale, zero, arguments, global_scale=divisor)[0]


def multiplying(stack: ExitStack) -> None:
    """Have every scheme multiply as it is defined, by the arguments that vLLM found for its layer."""
    from vllm.model_executor.layers.quantization.compressed_tensors import compressed_tensors
    from vllm.model_executor.layers.quantization.compressed_tensors.schemes import CompressedTensorsScheme

    config = compressed_tensors.CompressedTensorsConfig
    choose = config._get_scheme_from_parts

    def noting(self: Any, weight_quant: Any, input_quant: Any, *args: Any, **kwargs: Any) -> Any:
        scheme = choose(self, weight_quant, input_quant, *args, **kwargs)
        scheme.of_inputs = input_quant
        return scheme

    def apply_weights(self: Any, layer: Any, x: torch.Tensor, bias: Any = None, **_: Any) -> torch.Tensor:
        weight = weight_of(layer).to(x.dtype)
        return linear(rounded(x, layer, self.of_inputs).to(x.dtype), weight, bias)

    stack.enter_context(mock.patch.object(config, "_get_scheme_from_parts", noting))
    for found in vars(compressed_tensors).values():
        if isinstance(found, type) and issubclass(found, CompressedTensorsScheme):
            stack.enter_context(mock.patch.object(found, "apply_weights", apply_weights))
            stack.enter_context(mock.patch.object(found, "process_weights_after_loading"))


def expert_of(bank: Any, prefix: str, expert: int) -> SimpleNamespace:
    """The parameters that ``bank`` has for one expert, under the names that a Linear has for them."""
    names = [name for name, _ in bank.named_parameters() if name.startswith(prefix)]
    return SimpleNamespace(**{name.removeprefix(prefix): getattr(bank, name).data[expert] for name in names})


def routed(router: Any, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and numbers of the experts of each token, ``[tokens, k]``."""
    bias, groups = (getattr(router, name, None) for name in ("e_score_correction_bias", "num_expert_group"))
    if bias is None or not groups:
        weights, chosen = logits.softmax(-1).topk(router.top_k)
    else:  # DeepSeek-V3: of the best groups
        scores = logits.sigmoid()
        grouped = (scores + bias).unflatten(-1, (groups, -1))
        best = grouped.topk(2).values.sum(-1).topk(router.topk_group).indices
        outside = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter(-1, best, False)
        chosen = grouped.masked_fill(outside[..., None], -torch.inf).flatten(-2).topk(router.top_k).indices
        weights = scores.gather(-1, chosen)
    return weights / weights.sum(-1, keepdim=True) if router.renormalize else weights, chosen


def experts(self: Any, hidden_states: torch.Tensor, router_logits: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """A bank of gate, up and down."""
    bank, runner = getattr(self, "routed_experts", self), getattr(self, "runner", self)
    if runner.gate is not None:  # it was handed the states once more
        router_logits = linear(hidden_states, runner.gate.weight)
    weights, chosen = routed(runner.router, router_logits.float())
    of_inputs = getattr(bank.quant_method, "input_quant", None)
    output = torch.zeros_like(hidden_states)
    for expert in range(len(bank.w2_weight_packed if hasattr(bank, "w2_weight_packed") else bank.w2_weight)):
        tokens, place = torch.where(chosen == expert)
        x = hidden_states[tokens]
        for prefix in ("w13_", "w2_") if len(tokens) else ():
            layer = expert_of(bank, prefix, expert)
            weight = weight_of(layer) if hasattr(layer, "weight_scale") else layer.weight
            x = linear(rounded(x, layer, of_inputs).to(x.dtype), weight.to(x.dtype))
            if prefix == "w13_":
                gate, up = x.chunk(2, -1)
                x = silu(gate) * up
        output = output.index_add(0, tokens, (x * weights[tokens, place, None]).to(x.dtype))
    output = output * getattr(runner, "routed_scaling_factor", 1.0)
    return output if runner._shared_experts is None else output + runner._shared_experts._layer(hidden_states)


def linear_attention(self: Any, hidden_states: torch.Tensor, output: torch.Tensor | None = None) -> Any:
    """Of one sequence: the gated delta rule (Yang et al. 2024), token after token."""
    mixed, gates = self.in_proj_qkvz(hidden_states)[0], self.in_proj_ba(hidden_states)[0]
    if self.gqa_interleaved_layout:
        query, key, value, z, b, a = self.fix_query_key_value_ordering(mixed, gates)
        mixed = torch.cat([part.flatten(1) for part in (query, key, value)], -1)
    else:
        mixed, z = mixed.split([2 * self.key_dim + self.value_dim, self.value_dim], -1)
        z, (b, a) = z.unflatten(-1, (-1, self.head_v_dim)), gates.chunk(2, -1)
    taps = self.conv1d.weight
    mixed = silu(conv1d(pad(mixed.T, (taps.shape[-1] - 1, 0)), taps, groups=len(taps))).T.float()
    query, key, value = mixed.split([self.key_dim, self.key_dim, self.value_dim], -1)
    repeats = self.num_v_heads // self.num_k_heads
    query, key = (
        normalize(part.unflatten(-1, (-1, self.head_k_dim)), dim=-1, eps=1e-6).repeat_interleave(repeats, 1)
        for part in (query, key)
    )
    value, beta = value.unflatten(-1, (-1, self.head_v_dim)), b.float().sigmoid()
    decay = (-self.A_log.float().exp() * softplus(a.float() + self.dt_bias.float())).exp()
    state = torch.zeros(self.num_v_heads, self.head_k_dim, self.head_v_dim)
    outputs = []
    for token in range(len(mixed)):
        state = state * decay[token, :, None, None]
        known = torch.einsum("hkv,hk->hv", state, key[token])
        change = (value[token] - known) * beta[token, :, None]
        state = state + key[token, :, :, None] * change[:, None]
        outputs.append(torch.einsum("hkv,hk->hv", state, query[token]) * self.head_k_dim**-0.5)
    core = self.norm(torch.stack(outputs).to(hidden_states.dtype), z)
    projected = self.out_proj(core.flatten(-2))[0]
    if output is not None:
        output[:] = projected
    return projected


def attention(self: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> torch.Tensor:
    """Causal, of one sequence, without a cache."""
    q = query.view(len(query), self.num_heads, self.head_size).transpose(0, 1)
    k, v = (part.view(len(query), self.num_kv_heads, -1).transpose(0, 1) for part in (key, value))
    out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.impl_scale, enable_gqa=True)
    return out.transpose(0, 1).reshape(len(query), -1)


def latent_attention(self: Any, q: Any, kv_c_normed: Any, k_pe: Any, *_: Any, **__: Any) -> torch.Tensor:
    """Causal, of one sequence, without a cache."""
    known = self.kv_b_proj(kv_c_normed)[0].unflatten(-1, (self.num_heads, -1))
    k_nope, v = known.split([self.qk_nope_head_dim, self.v_head_dim], -1)
    k = torch.cat([k_nope, k_pe.reshape(len(q), 1, -1).expand(-1, self.num_heads, -1)], -1)
    q, k, v = (part.transpose(0, 1) for part in (q.view(len(q), self.num_heads, -1), k, v))
    out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
    return out.transpose(0, 1).flatten(1)


def main(folder: Path, tokens: list[int]) -> None:
    from vllm.forward_context import set_forward_context
    from vllm.model_executor.layers.attention import Attention
    from vllm.model_executor.model_loader.utils import process_weights_after_loading

    without_operators()
    made = Attention.__init__

    def init(self: Any, num_heads: int, head_size: int, scale: float, *args: Any, **kwargs: Any) -> None:
        made(self, num_heads, head_size, scale, *args, **kwargs)
        self.impl_scale = scale

    with ExitStack() as stack, torch.no_grad():
        without_kernels(stack)
        multiplying(stack)
        stack.enter_context(mock.patch.object(Attention, "__init__", init))
        stack.enter_context(mock.patch.object(Attention, "forward", attention))
        model, config = loaded(folder, stack)
        for module in model.modules():
            if hasattr(module, "q_lora_rank") and hasattr(module, "layer_name"):
                module.forward = partial(latent_attention, module)
                module.process_weights_after_loading = lambda _: None
            if hasattr(module, "w2_weight") or hasattr(module, "w2_weight_packed"):
                module.quant_method.process_weights_after_loading = lambda _: None
            if hasattr(module, "gqa_interleaved_layout"):
                module.forward = partial(linear_attention, module)
            if hasattr(module, "w13_weight_scale") or hasattr(module, "routed_experts"):
                module.forward = partial(experts, module)
        process_weights_after_loading(model, config.model_config, torch.device("cpu"))
        ids, positions = torch.tensor(tokens), torch.arange(len(tokens))
        if config.model_config.uses_mrope:  # one for each axis of images, all equal in text
            positions = positions.expand(3, -1)
        stack.enter_context(set_forward_context(None, config))
        logits = model.compute_logits(model(ids, positions, None, None))
    file = folder.with_suffix(".npy")
    np.save(file, logits.float().log_softmax(-1).numpy())
    json.dump({"file": str(file)}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
