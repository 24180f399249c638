"""Random prompts with one image each, as the processors of the tiny models would make them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig

__all__ = ["image_samples"]


def image_samples(folder: Path, count: int, *, text: int = 24, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """For the model in ``folder``, with ``text`` tokens beside those of the image."""
    random = torch.Generator().manual_seed(seed)
    config = AutoConfig.from_pretrained(folder)
    kind, vision = config.model_type, config.vision_config
    samples = []
    for number in range(count):
        inputs: dict[str, torch.Tensor] = {}
        if kind in ("gemma3", "mistral3"):
            size = vision.image_size
            inputs["pixel_values"] = torch.randn(1, 3, size, size, generator=random)
            tokens = config.mm_tokens_per_image if kind == "gemma3" else (size // vision.patch_size // 2) ** 2
            if kind == "mistral3":
                inputs["image_sizes"] = torch.tensor([[size, size]])
        else:
            height, width = 4, 4 + 2 * (number % 2)
            values = 3 * vision.temporal_patch_size * vision.patch_size**2
            inputs["pixel_values"] = torch.randn(height * width, values, generator=random)
            inputs["image_grid_thw"] = torch.tensor([[1, height, width]])
            tokens = height * width // vision.spatial_merge_size**2
        before = 3 + number % 3
        ids = torch.randint(7, 200, (1, text + tokens), generator=random)
        ids[0, before : before + tokens] = config.image_token_id
        inputs["input_ids"] = ids
        is_image = (ids == config.image_token_id).int()
        if kind == "gemma3":
            inputs["token_type_ids"] = is_image
        elif kind != "mistral3":
            inputs["mm_token_type_ids"] = is_image
        samples.append(inputs)
    return samples
