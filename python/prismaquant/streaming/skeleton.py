"""`Skeleton`: a transformers model whose parameters have no storage until they are needed.

The modules, their forward code, masks and rotary embeddings are transformers' own. A module is filled from the shards
when its turn comes and emptied after it, so at no time is more than one decoder layer real (beside the final norm, and
the embedding or the head during their turn). Everything is computed in float32, whatever the stored dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prismaquant.errors import ModelError, NumericError
from prismaquant.model.mtp import is_of_mtp, mtp_parts
from prismaquant.model.towers import is_of_tower
from prismaquant.streaming.experts import packed_parameters
from prismaquant.streaming.model_class import model_class, read_config
from prismaquant.streaming.mtp import Mtp

if TYPE_CHECKING:
    from prismaquant.model import Linear, Model, TensorInfo

__all__ = ["Skeleton"]

#: What is planted in a buffer, to see whether it is set.
_UNSET: dict[torch.dtype, float] = {torch.float32: math.nan, torch.int64: torch.iinfo(torch.int64).min}

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class Skeleton:
    """The modules of ``model``, empty.

    Parameters
    ----------
    device
        Where they are filled and run, as torch names it.

    Attributes
    ----------
    causal
        The whole model: hidden states -> logits.
    decoder
        Its decoder: token ids -> hidden states.
    layers, names
        The decoder layers, first to last, and their names (``"model.layers.0"``).
    layer_tensors
        Names of the tensors of each layer, for `filled`.
    mtp, mtp_tensors
        The layer that predicts a further token, if ``model`` has units in it, and the names of its tensors.
    towers
        Names of the tensors of vision and audio towers and their projectors, if ``model`` has units in them.
    embedding, head, rest
        Names of the tensors of the embedding, of the output head, and of what is in neither nor in a layer (the final
        norm), for `filled`.
    vocabulary
        Rows of the head.

    Raises
    ------
    ModelError
        transformers cannot build the model, or builds one that does not fit the checkpoint or that cannot be streamed.
    """

    def __init__(self, model: Model, device: str = "cpu") -> None:
        self._model = model
        self._parts = mtp_parts(model) if any(is_of_mtp(model, unit) for unit in model.units) else {}
        self._tensors = {self._module_name(name): info for name, info in model.tensors.items()}
        self.device = torch.device(device)
        self.causal = _build(model)
        self.decoder: nn.Module = self.causal.get_decoder()
        with_towers = any(is_of_tower(model, unit) for unit in model.units)
        _fill_buffers(self.causal, self.causal if with_towers else self.decoder, self.device, str(model.path))
        prefix = model.architecture.module_name(model.architecture.layers)
        self.layers: list[nn.Module] = list(self.causal.get_submodule(prefix).children())
        self.names = [f"{prefix}.{index}" for index in range(len(self.layers))]
        self.mtp: Mtp | None = None
        if self._parts:
            self.mtp = self.causal.mtp = Mtp(self.decoder, self.layers, str(model.path))
        state = self.causal.state_dict()
        tensors = tuple(state)
        self.layer_tensors = [_under(name, tensors) for name in self.names]
        self.mtp_tensors = _under("mtp", tensors) if self.mtp else ()
        self.embedding = _under(self._name_of(self.causal.get_input_embeddings()), tensors)
        self.head = _under(self._name_of(self.causal.get_output_embeddings()), tensors)
        known = {*self.embedding, *self.head, *(name for names in self.layer_tensors for name in names)}
        decoder = _under(self._name_of(self.decoder), tensors)
        self.rest = tuple(name for name in decoder if name not in known)
        known.update(self.rest, self.mtp_tensors)
        self.towers = tuple(name for name in tensors if name not in known) if with_towers else ()
        self.vocabulary = int(self.causal.get_output_embeddings().weight.shape[0])
        self._packed = self._find_packed(state)
        self._shapes = {name: tuple(state[name].shape) for name in self._packed}
        sources = self._find_sources()
        self._stored = {
            name: self._locate(name, sources.get(name, name), state[name])
            for name in (*known, *self.towers)
            if name not in self._packed
        }
        self._refuse_shared_parameters()

    @contextmanager
    def filled(self, names: Iterable[str]) -> Iterator[None]:
        """Inside, the parameters and persistent buffers called ``names`` are real: float32, without gradient.

        Raises
        ------
        NumericError
            If one has a NaN or an infinity.
        """
        empty: list[tuple[dict[str, torch.Tensor | None], str, torch.Tensor]] = []
        try:
            for name in names:
                owner, _, leaf = name.rpartition(".")
                module = self.causal.get_submodule(owner)
                table: dict[str, Any] = module._parameters if leaf in module._parameters else module._buffers
                empty.append((table, leaf, table[leaf]))
                real = self._read(name)
                table[leaf] = nn.Parameter(real, requires_grad=False) if table is module._parameters else real
            yield
        finally:
            for table, leaf, hollow in empty:
                table[leaf] = hollow

    def submodule(self, name: str) -> nn.Module:
        """The module that is called ``name`` on disk or in transformers."""
        module: nn.Module = self.causal.get_submodule(self._module_name(name))
        return module

    def _module_name(self, name: str) -> str:
        """What the module or tensor that is ``name`` on disk is called in ``causal``."""
        for part, place in sorted(self._parts.items(), key=lambda item: -len(item[1])):  # a block can contain the norms
            if name.startswith(f"{place}."):
                return f"mtp.{part}{name.removeprefix(place)}"
            if name == place:
                return f"mtp.{part}"
        return self._model.architecture.module_name(name)

    def _name_of(self, part: nn.Module | None) -> str:
        names = [name for name, module in self.causal.named_modules() if module is part]
        if not names:
            raise ModelError(
                f"{type(self.causal).__name__} has no token embedding or no output head", where=str(self._model.path)
            )
        return str(names[0])

    def _find_packed(self, state: Mapping[str, torch.Tensor]) -> dict[str, list[Linear]]:
        """Name of each parameter that holds experts -> the Linears that fill it."""
        packed = {}
        for unit in self._model.units:
            for place, linears in packed_parameters(unit).items() if unit.experts else ():
                name = self._module_name(place)
                shape = (unit.experts, sum(linear.rows for linear in linears) // unit.experts, linears[0].columns)
                if name not in state or tuple(state[name].shape) != shape:
                    found = list(state[name].shape) if name in state else None
                    raise ModelError(
                        f"{type(self.causal).__name__} has {found} for {name}, the checkpoint {list(shape)}",
                        where=str(self._model.path),
                        hint="config.json and weights must be of the same model",
                    )
                packed[name] = linears
        return packed

    def _find_sources(self) -> dict[str, str]:
        """Name of each parameter -> name of the tensor that fills it: its own, or that of a parameter tied to it."""
        tied: dict[int, list[str]] = {}
        for name, parameter in self.causal.named_parameters(remove_duplicate=False):
            tied.setdefault(id(parameter), []).append(name)
        sources = {}
        for names in tied.values():
            stored = [name for name in names if name in self._tensors]
            sources.update({name: name if name in stored or not stored else stored[0] for name in names})
        return sources

    def _refuse_shared_parameters(self) -> None:
        owner: dict[int, str] = {}
        for prefix, layer in zip(self.names, self.layers, strict=True):
            for name, parameter in layer.named_parameters():
                first = owner.setdefault(id(parameter), f"{prefix}.{name}")
                if first != f"{prefix}.{name}":
                    raise ModelError(
                        f"{prefix}.{name} is the same parameter as {first}",
                        where=str(self._model.path),
                        hint="models whose layers share weights cannot be walked layer by layer",
                    )

    def _locate(self, name: str, source: str, like: torch.Tensor) -> TensorInfo:
        """The stored tensor ``source`` that fills ``name``; refused if it is not there or does not fit ``like``."""
        info = self._tensors.get(source)
        if info is None:
            raise ModelError(
                f"has no tensor {name!r}, which {type(self.causal).__name__} needs", where=str(self._model.path)
            )
        if info.shape != tuple(like.shape):
            raise ModelError(
                f"tensor {name!r} has shape {list(info.shape)}, transformers expects {list(like.shape)}",
                where=f"{self._model.path / info.file}",
                hint="config.json and weights must be of the same model",
            )
        if info.dtype not in _DTYPES:
            raise ModelError(
                f"tensor {name!r} has dtype {info.dtype}", where=info.file, hint=f"accepted: {', '.join(_DTYPES)}"
            )
        return info

    def _read(self, name: str) -> torch.Tensor:
        """The tensor called ``name`` as float32."""
        if name in self._packed:
            weights = [torch.from_numpy(self._model.read_weight(linear)) for linear in self._packed[name]]
            return torch.cat(weights).view(self._shapes[name]).to(self.device)
        info = self._stored[name]
        stored = torch.from_numpy(self._model.read_bytes(info.name)).view(_DTYPES[info.dtype])
        if bad := int(stored.isfinite().logical_not().sum()):
            raise NumericError(f"tensor {info.name!r} has {bad} values that are NaN or infinite", where=info.file)
        return stored.to(torch.float32).view(info.shape).to(self.device)


def _under(prefix: str, tensors: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in tensors if name.startswith(f"{prefix}."))


def _build(model: Model) -> Any:  # transformers is typed in part only
    try:
        config = read_config(model.path)
        from_config: Any = model_class(config)._from_config
        with torch.device("meta"):
            # Plain products for each expert: other implementations differ in rounding, and not all devices have them.
            causal = from_config(config, dtype=torch.float32, experts_implementation="eager")
    except Exception as cause:  # whatever the model's own code raises on a bad configuration
        raise ModelError(f"transformers cannot build the model ({cause})", where=str(model.path)) from cause
    layers = model.architecture.module_name(model.architecture.layers)
    found = len(list(causal.get_submodule(layers).children()))
    if found != model.num_layers:
        raise ModelError(
            f"transformers builds {found} layers, config.json says {model.num_layers}", where=str(model.path)
        )
    causal.requires_grad_(False)
    return causal.eval()


def _fill_buffers(causal: Any, part: nn.Module, device: torch.device, where: str) -> None:
    """Give the buffers of ``part`` that no checkpoint stores (rotary frequencies, embedding scales) their values.

    The model's own initialization sets them, as when transformers loads a model; NaN, or of integers the least one,
    planted before shows any that it does not set.
    """
    hollow = [
        (f"{prefix}.{name}", module, name)
        for prefix, module in part.named_modules()
        for name in sorted(module._non_persistent_buffers_set)
        if module._buffers[name] is not None
    ]
    for full, module, name in hollow:
        buffer = module._buffers[name]
        if buffer.dtype not in _UNSET:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _UNSET)
            raise ModelError(f"buffer {full!r} has dtype {buffer.dtype}", where=where, hint=f"known: {known}")
        module._buffers[name] = torch.full_like(buffer, _UNSET[buffer.dtype], device="cpu")
    causal.initialize_weights()
    for full, module, name in hollow:
        buffer = module._buffers[name]
        if (buffer.isnan() if buffer.is_floating_point() else buffer == _UNSET[buffer.dtype]).any():
            raise ModelError(f"{type(causal).__name__} leaves buffer {full!r} without a value", where=where)
        module._buffers[name] = buffer.to(device)
