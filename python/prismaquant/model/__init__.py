"""A Hugging Face model folder, opened without torch: every tensor gets a role, weights are read one at a time."""

from prismaquant.model.architectures import Architecture, list_architectures
from prismaquant.model.checkpoint import Model, open_model
from prismaquant.model.headers import TensorInfo
from prismaquant.model.units import Linear, Unit

__all__ = ["Architecture", "Linear", "Model", "TensorInfo", "Unit", "list_architectures", "open_model"]
