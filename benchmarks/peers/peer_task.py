"""What the scripts of all peers do: read the task, load the model, time the recipe, write weights and a report.

Runs in the peer's environment: only numpy, torch, transformers and safetensors beside the peer.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM

__all__ = ["BATCH", "Recipe", "decoder_linears", "run"]

#: Calibration windows that are run at a time.
BATCH = 8

#: The model in float32 and ids ``[windows, seq_len]`` -> decoded weights of the decoder's Linears by name.
Recipe = Callable[[nn.Module, torch.Tensor], dict[str, torch.Tensor]]


def run(recipes: Mapping[str, Recipe], packages: Sequence[str]) -> None:
    """Does what the command line asks for.

    Parameters
    ----------
    recipes
        By the name that the command line knows.
    packages
        Distributions whose versions go into the report.
    """
    options = _parser(recipes).parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, local_files_only=True).eval()
    ids = torch.from_numpy(np.load(options.calibration).astype(np.int64))
    wall, processor = time.perf_counter(), time.process_time()
    weights = recipes[options.recipe](model, ids)
    report = {
        "recipe": options.recipe,
        "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - processor,
        "versions": {name: version(name) for name in (*packages, "torch", "transformers")},
    }
    tensors = {f"{name}.weight": weight.detach().float().contiguous().clone() for name, weight in weights.items()}
    save_file(tensors, options.out)
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def decoder_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Linears of the decoder layers by name, also those that a peer put a class of its own in place of."""
    named = model.model.layers.named_modules(prefix="model.layers")
    return {name: module for name, module in named if isinstance(module, nn.Linear)}


def _parser(recipes: Mapping[str, Recipe]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("calibration", type=Path, help=".npy of token ids [windows, seq_len]")
    parser.add_argument("out", type=Path, help=".safetensors to write; the report goes beside it as .json")
    parser.add_argument("--recipe", choices=sorted(recipes), required=True)
    parser.add_argument("--threads", type=int, default=1)
    return parser
