"""`serve_command`: the `vllm serve` command for a written folder, and what nobody has tried."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prismaquant.errors import ModelError
from prismaquant.exporting.checks.folder import Folder, read_folder
from prismaquant.facts import find_cache, list_faults
from prismaquant.files import manifest
from prismaquant.files.plan import Plan
from prismaquant.model.architectures import find_architecture
from prismaquant.model.folder import CONFIG
from prismaquant.model.kv_cache import longest_context

__all__ = ["ServeCommand", "serve_command"]

#: Fields of ``config.json``, of which a model has one.
_FURTHER_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers")


@dataclass(frozen=True, slots=True)
class ServeCommand:
    """Result of `serve_command`.

    Attributes
    ----------
    arguments
        The command, word by word.
    notes
        What engines are known to get wrong about the folder, and what was not tested.
    """

    arguments: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(self.arguments)

    def __repr__(self) -> str:
        return f"ServeCommand({self.text})"


def serve_command(
    checkpoint: Path, *, context: int | None, kv: str | None, tensor_parallel: int | None, text_only: bool
) -> ServeCommand:
    """The command that serves the folder ``checkpoint`` with vLLM.

    What is ``None`` is as the plan of the folder was made for, if that was a device, and else left to vLLM.

    Raises
    ------
    ModelError
        It is no model folder that can be read.
    ArgumentError
        ``kv`` is unknown.
    """
    folder, failures = read_folder(checkpoint)
    if folder is None:
        raise ModelError(failures[0].text, where=f"{checkpoint}: {failures[0].where}", hint="verify the folder")
    plan = _plan(folder)
    fitted = None if plan is None or plan.footprint is None or plan.footprint.memory is None else plan.footprint
    if fitted is not None:
        context = fitted.context if context is None else context
        kv = fitted.kv if kv is None else kv
        tensor_parallel = fitted.tensor_parallel if tensor_parallel is None else tensor_parallel
    kv = "fp8" if kv is None and folder.has_cache_scheme else kv
    arguments = ["vllm", "serve", str(checkpoint)]
    if context is not None:
        arguments += ["--max-model-len", str(context)]
    if kv is not None and find_cache(kv).name != "bf16":
        arguments += ["--kv-cache-dtype", find_cache(kv).name]
    if tensor_parallel is not None and tensor_parallel > 1:
        arguments += ["--tensor-parallel-size", str(tensor_parallel)]
    if further := _further_layers(folder):
        arguments += ["--speculative-config", f'{{"method": "mtp", "num_speculative_tokens": {further}}}']
    has_tower = any(key.endswith("_config") and key.startswith(("vision", "audio")) for key in folder.config)
    if has_tower and text_only:
        arguments += ["--limit-mm-per-prompt", '{"image": 0, "video": 0, "audio": 0}']
    notes = (
        *_faults(plan),
        *_too_long(folder, context),
        *_untested(plan is None or fitted is not None, further, kv, has_scales=folder.has_cache_scheme),
    )
    return ServeCommand(tuple(arguments), notes)


def _plan(folder: Folder) -> Plan | None:
    path = folder.path / manifest.FILE
    return manifest.read(path).plan if path.exists() else None


def _further_layers(folder: Folder) -> int:
    """How many layers predict further tokens (MTP)."""
    config = _text_config(folder)
    return next((config[name] for name in _FURTHER_LAYERS if isinstance(config.get(name), int)), 0)


def _text_config(folder: Folder) -> Mapping[str, Any]:
    """The fields of the language model."""
    try:
        return find_architecture(folder.config, CONFIG).text_config(folder.config)
    except ModelError:  # of an architecture that has no entry
        return folder.config


def _faults(plan: Plan | None) -> list[str]:
    return [
        f"{fault} ({', '.join(fault.schemes)}; {fault.source})"
        for fault in list_faults()
        if plan is not None and any(fault.concerns(unit.scheme, unit.name, is_bank=unit.is_bank) for unit in plan.units)
    ]


def _too_long(folder: Folder, context: int | None) -> list[str]:
    made_for = longest_context(_text_config(folder))
    if context is None or made_for is None or context <= made_for:
        return []
    return [f"the model was made for up to {made_for} tokens: vLLM refuses a context of {context}"]


def _untested(fitted: bool, further: int, kv: str | None, *, has_scales: bool) -> list[str]:
    notes = ["not tested here: that this vLLM starts with it"]
    if not fitted:
        notes.append("the plan was not made for the memory of a device (--fit)")
    if further:
        notes.append("not tested here: the layers that predict further tokens")
    if kv not in (None, "auto", "bf16"):
        what = "its loss is part of what eval measures, not of the prices" if has_scales else "its loss is not measured"
        missing = "" if has_scales else "the folder has no scales for it, vLLM takes 1; "
        notes.append(f"the KV cache is rounded to {kv}: {missing}{what}")
    return notes
