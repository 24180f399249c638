"""Run by Python when it starts with this folder on its path: torchvision can then be imported beside a torch for CPUs.

vLLM asks for it where a model sees. The wheel on PyPI is built for CUDA and registers operators when its library loads,
which it cannot here; Python code that imports it only wants them declared.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

OPERATORS = ("nms", "qnms")


class DeclaresOperators(MetaPathFinder):
    """Finds nothing itself."""

    library: Any = None

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "torchvision" and self.library is None:
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            for name in OPERATORS:
                self.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, DeclaresOperators())
