"""The class of transformers that a model folder is loaded as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

__all__ = ["model_class", "read_config"]


def read_config(folder: Path) -> transformers.PreTrainedConfig:
    """The configuration of the model in ``folder``, without network, and without code that comes with it."""
    config: transformers.PreTrainedConfig = transformers.AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    return config


def model_class(config: transformers.PreTrainedConfig) -> Any:  # transformers is typed in part only
    """The class that ``config`` names first, as engines take it, with its towers; otherwise what transformers chooses.

    A name that transformers does not have is of code that comes with a model, and that is never run.
    """
    names: list[str] = config.architectures or []
    found = getattr(transformers, names[0], None) if names else None
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    return transformers.AutoModelForCausalLM
